/* trace.c - a request, its prompt and its reply in one file. A thread of its own writes
 * them, so that nobody waits for the disk; where that is too slow, or a file cannot be
 * written, traces lack parts, and a client has its answer all the same. */
#include "trace.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_WAITING ((size_t)256 << 20) /* bytes, of all traces */

struct Trace {
    char folder[1024];
    Workers *writer; /* one thread: what it is given is done in its order */
    atomic_size_t waiting;
};

enum { NOT_OPENED = -1, NO_FILE = -2 };

struct TraceFile {
    Trace *trace;
    char name[48];
    int fd; /* the writer's; or one of these */
    bool replied;
};

/* What the writer is to do with a file: add a piece, and perhaps end it. */
typedef struct {
    TraceFile *f;
    Bytes text;
    bool end;
} Piece;

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
    bool ok =
        (made && stat(folder, &st) == 0 && S_ISDIR(st.st_mode) && access(folder, W_OK) == 0) ||
        fail(err, DS4_EIO, "traces cannot be written into %s: %s", folder, strerror(errno));
    if (ok && (t->writer = workers_new(1, err)))
        return t;
    free(t);
    return NULL;
}

void trace_close(Trace *t)
{
    if (!t)
        return;
    workers_free(t->writer);
    free(t);
}

/* ---- on the writer's thread -------------------------------------------------------------- */

static int open_file(const TraceFile *f)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s.txt", f->trace->folder, f->name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : NO_FILE;
}

static void write_piece(void *arg)
{
    Piece *p = arg;
    TraceFile *f = p->f;
    if (f->fd == NOT_OPENED)
        f->fd = open_file(f);
    for (size_t at = 0; f->fd >= 0 && at < p->text.n;) {
        ssize_t n = write(f->fd, p->text.p + at, p->text.n - at);
        if (n < 0 && errno != EINTR)
            break;
        at += n > 0 ? (size_t)n : 0;
    }
    atomic_fetch_sub(&f->trace->waiting, p->text.n);
    bytes_release(&p->text);
    if (p->end) {
        if (f->fd >= 0)
            close(f->fd);
        free(f);
    }
    free(p);
}

/* ---- on the network thread ----------------------------------------------------------------- */

/* Takes the text over. The last piece, which is small, is left out only where there is no
 * memory: then the file stays open. */
static void hand_over(TraceFile *f, Bytes *text, bool end)
{
    Trace *t = f->trace;
    bool room = !text->failed && (end || atomic_load(&t->waiting) + text->n <= MOST_WAITING);
    Piece *p = room ? malloc(sizeof *p) : NULL;
    if (!p) {
        bytes_release(text);
        return;
    }
    *p = (Piece){ f, *text, end };
    atomic_fetch_add(&t->waiting, p->text.n);
    if (workers_run(t->writer, write_piece, p, 0))
        return;
    atomic_fetch_sub(&t->waiting, p->text.n);
    bytes_release(&p->text);
    free(p);
}

static void put_title(Bytes *b, const char *title) { bytes_printf(b, "\n==== %s\n", title); }

TraceFile *trace_begin(Trace *t, const char *request_id, const char *what, Str body)
{
    TraceFile *f = t ? calloc(1, sizeof *f) : NULL;
    Bytes b = { 0 };
    if (!f)
        return NULL;
    *f = (TraceFile){ .trace = t, .fd = NOT_OPENED };
    snprintf(f->name, sizeof f->name, "%.40s", request_id);
    bytes_printf(&b, "==== request %s: %s\n", request_id, what);
    bytes_put(&b, body.p, body.n);
    hand_over(f, &b, false);
    return f;
}

void trace_prompt(TraceFile *f, const Job *j, const ds4_vocab *v)
{
    Bytes b = { 0 };
    if (!f)
        return;
    put_title(&b, "prompt");
    for (size_t i = 0; i < j->prompt.n; i++) {
        Str word = vocab_bytes(v, j->prompt.id[i]);
        bytes_put(&b, word.p, word.n);
    }
    hand_over(f, &b, false);
}

void trace_bytes(TraceFile *f, Str bytes)
{
    Bytes b = { 0 };
    if (!f)
        return;
    if (!f->replied)
        put_title(&b, "reply");
    f->replied = true;
    bytes_put(&b, bytes.p, bytes.n);
    hand_over(f, &b, false);
}

void trace_end(TraceFile *f, const char *how)
{
    Bytes b = { 0 };
    if (!f)
        return;
    put_title(&b, how);
    hand_over(f, &b, true);
}
