/* trace.c - a request, its prompt and its reply in one file. A trace that cannot
 * be written must not keep a client from its answer, so failures end the file. */
#include "trace.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct Trace {
    char folder[1024];
};

struct TraceFile {
    FILE *f;
    bool replied;
};

Trace *trace_open(const char *folder, ds4_err *err)
{
    struct stat st;
    Trace *t = calloc(1, sizeof *t);
    if (!t || strlen(folder) + 64 > sizeof t->folder) {
        free(t);
        fail(err, DS4_EINVAL, "the folder for traces cannot be %s", folder);
        return NULL;
    }
    snprintf(t->folder, sizeof t->folder, "%s", folder);
    bool made = mkdir(folder, 0700) == 0 || errno == EEXIST;
    if (made && stat(folder, &st) == 0 && S_ISDIR(st.st_mode) && access(folder, W_OK) == 0)
        return t;
    fail(err, DS4_EIO, "traces cannot be written into %s: %s", folder, strerror(errno));
    free(t);
    return NULL;
}

void trace_close(Trace *t) { free(t); }

static void put(TraceFile *f, Str s)
{
    if (s.n)
        fwrite(s.p, 1, s.n, f->f);
}

static void put_title(TraceFile *f, const char *title) { fprintf(f->f, "\n==== %s\n", title); }

TraceFile *trace_begin(Trace *t, const char *request_id, const char *what, Str body)
{
    char path[1100];
    if (!t)
        return NULL;
    snprintf(path, sizeof path, "%s/%.40s.txt", t->folder, request_id);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    TraceFile *f = fd >= 0 ? calloc(1, sizeof *f) : NULL;
    if (f)
        f->f = fdopen(fd, "w");
    if (!f || !f->f) {
        if (fd >= 0)
            close(fd);
        free(f);
        return NULL;
    }
    fprintf(f->f, "==== request %s: %s\n", request_id, what);
    put(f, body);
    return f;
}

void trace_prompt(TraceFile *f, const Job *j, const ds4_vocab *v)
{
    if (!f)
        return;
    put_title(f, "prompt");
    for (size_t i = 0; i < j->prompt.n; i++)
        put(f, vocab_bytes(v, j->prompt.id[i]));
    fflush(f->f);
}

void trace_bytes(TraceFile *f, Str bytes)
{
    if (!f)
        return;
    if (!f->replied)
        put_title(f, "reply");
    f->replied = true;
    put(f, bytes);
}

void trace_end(TraceFile *f, const char *how)
{
    if (!f)
        return;
    put_title(f, how);
    fclose(f->f);
    free(f);
}
