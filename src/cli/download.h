/* download.h - a file that is being downloaded: PATH.part, and PATH.part-info, which
 * says of what it is a part. */
#ifndef DOWNLOAD_H
#define DOWNLOAD_H
#include "response.h"
#include <openssl/evp.h>

/* What a part is of. Empty or 0 where nobody said. */
typedef struct {
    char url[1024], etag[160], modified[64];
    char sha256[SHA256_HEX + 1]; /* of the whole file */
    uint64_t bytes;
} DownloadInfo;

typedef struct {
    char *path, *tmp, *note; /* PATH, PATH.part, PATH.part-info */
    int fd;
    bool open;
    uint64_t have;
    EVP_MD_CTX *sum; /* of what there is */
    DownloadInfo info;
} Download;

/* Takes what an earlier run left, for this process alone; without a readable note there
 * is nothing. Its sum is computed, which can be interrupted. */
bool download_open(Download *p, const char *path, ds4_err *err);
void download_close(Download *p); /* what there is stays */

/* Empty again, and a part of this now. */
bool download_begin(Download *p, const DownloadInfo *info, ds4_err *err);
bool download_append(Download *p, const void *data, size_t n, ds4_err *err);
bool download_read(const Download *p, uint64_t at, void *out, size_t n, ds4_err *err);
bool download_sha256(const Download *p, char hex[SHA256_HEX + 1], ds4_err *err);
/* Becomes PATH. */
bool download_install(Download *p, ds4_err *err);
/* Removed. */
void download_discard(Download *p);

/* The same sum of any file, with a bar. */
bool file_sha256(const char *path, char hex[SHA256_HEX + 1], ds4_err *err);

#endif
