/*
 * rights.c - peer credentials. See rights.h.
 */
#include "server/writer/rights.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/writer/dirs.h"

int kithi_rights_group(const char *name, gid_t *out_gid, struct kithi_errmsg *err)
{
    errno = 0;
    struct group *g = getgrnam(name); /* at start, with one thread */
    if (g) {
        *out_gid = g->gr_gid;
        return 0;
    }
    char *end;
    errno = 0;
    unsigned long n = strtoul(name, &end, 10);
    if (!errno && *name >= '0' && *name <= '9' && !*end && n < KITHI_NO_GROUP) {
        *out_gid = (gid_t)n;
        return 0;
    }
    return kithi_error_set(err, -ENOENT, "there is no group \"%s\" on this machine", name);
}

bool kithi_rights_own(const struct kithi_rights_policy *p, uid_t uid)
{
    return uid == 0 || uid == p->owner;
}

struct kithi_rights kithi_rights_decide(const struct kithi_rights_policy *p, uid_t uid, gid_t gid,
                                        const gid_t *groups, size_t n)
{
    struct kithi_rights r = { 0 };
    if (kithi_rights_own(p, uid)) {
        return (struct kithi_rights){ .read = true, .write = true };
    }
    for (size_t i = 0; i <= n; i++) {
        gid_t g = i < n ? groups[i] : gid;
        r.write |= p->write_group != KITHI_NO_GROUP && g == p->write_group;
        r.read |= p->read_group != KITHI_NO_GROUP && g == p->read_group;
    }
    r.read |= r.write;
    return r;
}

int kithi_rights_of_peer(const struct kithi_rights_policy *p, int fd, struct kithi_rights *out,
                         uid_t *out_uid)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
        return -errno;
    }
    gid_t few[64], *groups = few;
    len = sizeof few;
    int status = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len)) {
        if (errno != ERANGE) {
            return -errno;
        }
        groups = malloc(len); /* the kernel has said how much it wants */
        if (!groups) {
            return -ENOMEM;
        }
        status = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) ? -errno : 0;
    }
    if (!status) {
        *out = kithi_rights_decide(p, cred.uid, cred.gid, groups, len / sizeof(gid_t));
        *out_uid = cred.uid;
    }
    if (groups != few) {
        free(groups);
    }
    return status;
}

int kithi_rights_denied(const struct kithi_rights_policy *p, bool write, const char *what,
                        struct kithi_errmsg *err)
{
    const char *kind = write ? "write" : "read";
    gid_t group = write ? p->write_group : p->read_group;
    if (group == KITHI_NO_GROUP) {
        return kithi_error_set(err, KITHI_E_DENIED,
                               "%s is allowed to kithd's own user only; it was started without --%s-group",
                               what, kind);
    }
    return kithi_error_set(err, KITHI_E_DENIED, "%s needs membership in the %s group \"%s\"", what, kind,
                           write ? p->write_name : p->read_name);
}
