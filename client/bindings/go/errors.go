package kith

/*
#include <kith/kith.h>
*/
import "C"

import "fmt"

// Code is a negative number of kith.h: a KITH_E_ code, or -errno. It is an error by itself, so that
//
//	errors.Is(err, kith.NotFound)
//
// tells what happened, and *Error, which wraps it, says it in words.
type Code int

// The codes of kith.h.
const (
	Corrupt        Code = C.KITH_E_CORRUPT
	Replaced       Code = C.KITH_E_REPLACED // the collection was dropped: open it again
	Stale          Code = C.KITH_E_STALE    // what a snapshot saw is not all there any more
	Version        Code = C.KITH_E_VERSION
	NotFound       Code = C.KITH_E_NOT_FOUND
	NoCollection   Code = C.KITH_E_NO_COLLECTION
	Exists         Code = C.KITH_E_EXISTS
	Name           Code = C.KITH_E_NAME
	BadID          Code = C.KITH_E_ID
	Dimension      Code = C.KITH_E_DIMENSION
	NotFinite      Code = C.KITH_E_NOT_FINITE
	ZeroVector     Code = C.KITH_E_ZERO_VECTOR
	Full           Code = C.KITH_E_FULL
	NoSpace        Code = C.KITH_E_NO_SPACE
	Denied         Code = C.KITH_E_DENIED
	TooLarge       Code = C.KITH_E_TOO_LARGE
	Protocol       Code = C.KITH_E_PROTOCOL
	NoDaemon       Code = C.KITH_E_NO_DAEMON // nothing was sent: try again when kithd is back
	LogFailed      Code = C.KITH_E_LOG_FAILED
	Timeout        Code = C.KITH_E_TIMEOUT
	BadK           Code = C.KITH_E_K
	BadEf          Code = C.KITH_E_EF
	NotSegment     Code = C.KITH_E_NOT_SEGMENT
	LogDamaged     Code = C.KITH_E_LOG_DAMAGED
	Busy           Code = C.KITH_E_BUSY
	UnknownOutcome Code = C.KITH_E_UNKNOWN_OUTCOME // upserts and deletes may be repeated
	Truncated      Code = C.KITH_E_TRUNCATED
	Format         Code = C.KITH_E_FORMAT
	Unsupported    Code = C.KITH_E_UNSUPPORTED
	Parameter      Code = C.KITH_E_PARAMETER
	RunDir         Code = C.KITH_E_RUN_DIR
	Shutdown       Code = C.KITH_E_SHUTDOWN
	Starting       Code = C.KITH_E_STARTING // kithd is still bringing the collection back: try again
	BadRecall      Code = C.KITH_E_RECALL
	BadCursor      Code = C.KITH_E_CURSOR
	NotYet         Code = C.KITH_E_EPOCH // the snapshot's epoch is not visible yet
	BadPayload     Code = C.KITH_E_PAYLOAD
	BadFilter      Code = C.KITH_E_FILTER
)

// Error is the fixed text of the code.
func (c Code) Error() string {
	return C.GoString(C.kith_strerror(C.int(c)))
}

// Error is what libkith refused or could not do, in words that say what and where.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives the Code, for errors.Is.
func (e *Error) Unwrap() error { return e.Code }

// Symbol is the name in kith.h, "KITH_E_STALE", or that of an errno, "ENOSPC".
func (e *Error) Symbol() string { return C.GoString(C.kith_errname(C.int(e.Code))) }

// failed makes an error of a code; said may be nil, about "".
func failed(rc C.int, said *C.struct_kith_error, about string) error {
	e := &Error{Code: Code(rc)}
	switch {
	case said != nil && said.code == rc && said.text[0] != 0:
		e.Text = C.GoString(&said.text[0])
	case about != "":
		e.Text = fmt.Sprintf("%s: %s", about, e.Code.Error())
	default:
		e.Text = e.Code.Error()
	}
	return e
}
