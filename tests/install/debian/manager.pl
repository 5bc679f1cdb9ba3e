#!/usr/bin/perl
# A service manager's ear: writes what comes to a notify socket into a file, a message a line.
#
#   manager.pl SOCKET FILE
use strict;
use warnings;
use IO::Handle;
use IO::Socket::UNIX;
use Socket;

my ($path, $file) = @ARGV;
my $ear = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $path) or die "$path: $!";
chmod 0777, $path;
open(my $out, '>', $file) or die "$file: $!";
$out->autoflush(1);
while (defined($ear->recv(my $text, 4096))) {
    $text =~ tr/\n/ /;
    print $out "$text\n";
}
