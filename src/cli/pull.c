/* pull.c - ds4 pull: a published model to its place on this machine. */
#include "cli.h"
#include "../base/file.h"
#include "fetch.h"
#include "fetched.h"
#include "download.h"
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char about[] =
    "Downloads a model: a published one by its name, from a mirror, or any GGUF by --url. What is\n"
    "cut off goes on where it stopped. Its path goes to stdout, and it becomes the default model.\n"
    "A name's URL is the mirror's, a slash, and the published file's name. libcurl does the\n"
    "transfer, so its variables for proxies (https_proxy, ...) hold.";

/* The published files that the engine runs. Their headers are not known, so neither are their
 * exact sizes: bytes are those of the tensors. Nor are their SHA-256: servers tell those. */
static const struct {
    const char *name, *file, *what;
    uint64_t tensor_bytes;
} published[] = {
    { "q2", "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2.gguf",
      "experts IQ2_XXS and Q2_K", 86714775900 },
    { "q2-imatrix", "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix.gguf",
      "the same, weighted by importance", 86714775900 },
    { "q2-q4",
      "DeepSeek-V4-Flash-Layers37-42Q4KExperts-OtherExpertLayersIQ2XXSGateUp-Q2KDown-AProjQ8-"
      "SExpQ8-OutQ8-chat-v2-imatrix-fixed.gguf",
      "the same, Q4_K in the last six layers", 97586411868 },
    { "q4",
      "DeepSeek-V4-Flash-Q4KExperts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-"
      "chat-v2.gguf",
      "experts Q4_K", 164628167004 },
    { "q4-imatrix",
      "DeepSeek-V4-Flash-Q4KExperts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-chat-v2-"
      "imatrix.gguf",
      "the same, weighted by importance", 164628167004 },
};
enum { MOST_HEADER = 64 << 20, MOST_URL = 1000 };

typedef struct {
    const char *url, *mirror, *sha256, *dir;
    uint64_t size;
    int patience, tries;
    bool list;
} PullOptions;

/* What is asked for. */
typedef struct {
    char folder[FETCHED_PATH], path[2 * FETCHED_PATH], url[2 * FETCHED_PATH];
    char sha256[SHA256_HEX + 1];
    const char *name; /* of the file */
    uint64_t least, most;
} Wanted;

/* ---- the list ----------------------------------------------------------------------- */

/* "here", "41 %" or "". */
static void put_state(Bytes *b, const char *folder, const char *file, uint64_t bytes)
{
    struct stat st;
    char path[2 * FETCHED_PATH];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (stat(path, &st) == 0)
        bytes_str(b, "here");
    snprintf(path, sizeof path, "%s/%s.part", folder, file);
    if (stat(path, &st) == 0)
        bytes_printf(b, "%d %%", (int)MIN(99, 100.0 * (double)st.st_size / (double)bytes));
}

static bool print_list(const char *folder, ds4_err *err)
{
    Bytes b = { 0 };
    char size[16];
    for (size_t i = 0; i < COUNT(published); i++) {
        bytes_printf(&b, "%-11s %8s  %-38s ", published[i].name,
                     cli_size(size, published[i].tensor_bytes), published[i].what);
        put_state(&b, folder, published[i].file, published[i].tensor_bytes);
        while (b.n && b.p[b.n - 1] == ' ')
            b.n--;
        bytes_printf(&b, "\n            %s\n", published[i].file);
    }
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for the list") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

/* ---- what is asked for ---------------------------------------------------------------- */

static int unknown_name(const char *name)
{
    const char *names[COUNT(published)];
    for (size_t i = 0; i < COUNT(published); i++)
        names[i] = published[i].name;
    const char *near = cli_nearest(name, names, COUNT(names));
    if (near)
        return cli_usage_error("unknown model '%.60s'. Did you mean %s?", name, near);
    return cli_usage_error("unknown model '%.60s'; ds4 pull --list names them", name);
}

static bool is_url(const char *url)
{
    size_t n = strlen(url);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)url[i] <= ' ')
            return false;
    }
    return n < MOST_URL && (!strncmp(url, "http://", 7) || !strncmp(url, "https://", 8));
}

/* Names that mean something else in the folder: the note of the last one, and parts. */
static bool is_taken(const char *name)
{
    static const char *const ends[] = { ".part", ".part-info" };
    const size_t n = strlen(name);
    bool taken = strcmp(name, "last") == 0;
    for (size_t i = 0; i < COUNT(ends); i++) {
        const size_t k = strlen(ends[i]);
        taken |= n >= k && strcmp(name + n - k, ends[i]) == 0;
    }
    return taken;
}

/* The last part of a URL's path, into room behind w->path's folder. */
static bool file_name(const char *url, char *out, size_t room)
{
    const char *host = strstr(url, "://") + 3;
    size_t end = strcspn(host, "?#"), from = end;
    while (from && host[from - 1] != '/')
        from--;
    if (from == 0 || from == end || end - from >= room || host[from] == '.')
        return false;
    memcpy(out, host + from, end - from);
    out[end - from] = '\0';
    return true;
}

static int want_named(Wanted *w, const PullOptions *o, const char *name)
{
    char mirror[FETCHED_PATH], from[FETCHED_PATH] = "ds4/mirror";
    size_t i = 0;
    while (i < COUNT(published) && strcmp(published[i].name, name) != 0)
        i++;
    if (i == COUNT(published))
        return unknown_name(name);
    if (o->mirror)
        snprintf(mirror, sizeof mirror, "%s", o->mirror);
    else if (!fetched_mirror(mirror, from))
        return cli_usage_error("where from? --mirror URL says it, or a line in %s", from);
    if (!is_url(mirror))
        return cli_usage_error("the mirror '%.80s' is no http or https URL", mirror);
    size_t n = strlen(mirror);
    while (n && mirror[n - 1] == '/')
        n--;
    snprintf(w->url, sizeof w->url, "%.*s/%s", (int)n, mirror, published[i].file);
    w->name = published[i].file;
    w->least = published[i].tensor_bytes;
    w->most = w->least + MOST_HEADER;
    return -1;
}

static int want_url(Wanted *w, const PullOptions *o, char *name, size_t room)
{
    if (!is_url(o->url))
        return cli_usage_error("--url '%.80s' is no http or https URL", o->url);
    if (o->mirror)
        return cli_usage_error("--url and --mirror contradict each other");
    if (!file_name(o->url, name, room))
        return cli_usage_error("--url '%.80s' names no file", o->url);
    if (is_taken(name))
        return cli_usage_error("--url '%.80s': %s is no name for a model here", o->url, name);
    snprintf(w->url, sizeof w->url, "%s", o->url);
    w->name = name;
    return -1;
}

static int find_folder(char folder[FETCHED_PATH], const PullOptions *o)
{
    if (o->dir && strlen(o->dir) >= FETCHED_PATH)
        return cli_usage_error("--dir is longer than %d bytes", FETCHED_PATH - 1);
    if (o->dir)
        memcpy(folder, o->dir, strlen(o->dir) + 1);
    else if (!fetched_folder(folder))
        return cli_usage_error("where to? HOME names no folder, and there is no --dir");
    return -1;
}

/* -1, or the exit status of wrong usage. name: room for a URL's. */
static int settle(Wanted *w, const PullOptions *o, const char *arg, char *name, size_t room)
{
    if (!arg == !o->url)
        return cli_usage_error(arg ? "a NAME and --url contradict each other"
                                   : "which model? ds4 pull --list names them");
    if (o->sha256 && !sha256_parse(w->sha256, str_of(o->sha256)))
        return cli_usage_error("--sha256 is %zu characters, expected 64 hex digits",
                               strlen(o->sha256));
    int status = find_folder(w->folder, o);
    if (status < 0)
        status = arg ? want_named(w, o, arg) : want_url(w, o, name, room);
    if (o->size)
        w->least = w->most = o->size;
    if (status < 0)
        snprintf(w->path, sizeof w->path, "%s/%s", w->folder, w->name);
    return status;
}

/* ---- doing it ----------------------------------------------------------------------- */

/* A file of that name that is there already must be the one that is asked for. */
static bool check_present(const Wanted *w, uint64_t bytes, ds4_err *err)
{
    char sum[SHA256_HEX + 1];
    if (w->most && (bytes < w->least || bytes > w->most))
        return fail(err, DS4_EFORMAT, "it is there and has %llu bytes, expected %llu: remove %s",
                    (unsigned long long)bytes, (unsigned long long)w->least, w->path);
    if (!w->sha256[0])
        return true;
    return file_sha256(w->path, sum, err) &&
           (strcmp(sum, w->sha256) == 0 ||
            fail(err, DS4_EFORMAT, "it is there and its SHA-256 is %s, expected %s", sum,
                 w->sha256));
}

static bool download(Wanted *w, const PullOptions *o, ds4_err *err)
{
    const FetchOptions options = { .url = w->url,
                                   .path = w->path,
                                   .sha256 = w->sha256[0] ? w->sha256 : NULL,
                                   .least = w->least,
                                   .most = w->most,
                                   .patience_s = o->patience,
                                   .tries = o->tries };
    Fetched got = { 0 };
    char size[16], shown[sizeof w->url];
    fetch_url(shown, sizeof shown, w->url);
    cli_warn("%s to %s", shown, w->folder);
    if (!file_make_folders(w->path, err) || !fetch(&options, &got, err))
        return false;
    if (w->sha256[0] || got.told)
        cli_warn("%s, SHA-256 as %s", cli_size(size, got.bytes),
                 got.told ? "the server tells it" : "expected");
    else
        cli_warn("%s, SHA-256 %s, which nobody told before", cli_size(size, got.bytes), got.sha256);
    return true;
}

static bool pull(Wanted *w, const PullOptions *o, ds4_err *err)
{
    struct stat st;
    const bool there = stat(w->path, &st) == 0;
    if (there && !S_ISREG(st.st_mode))
        return fail(err, DS4_EIO, "%s is there and is not a regular file", w->path);
    bool ok = there ? check_present(w, (uint64_t)st.st_size, err) : download(w, o, err);
    if (ok && there)
        cli_warn(w->sha256[0] ? "it is there already"
                 : w->most    ? "it is there already: its size is right, its SHA-256 nobody told"
                              : "it is there already: neither its size nor its SHA-256 was told");
    return ok && fetched_remember(w->path, err) && cli_out(w->path, strlen(w->path), err) &&
           cli_out("\n", 1, err);
}

static int report(const Wanted *w, const ds4_err *err)
{
    ds4_err whole = { 0 };
    fail(&whole, err->code, "%s: %.60s", err->msg, w->name);
    return cli_fail(&whole);
}

int cmd_pull(int argc, char **argv)
{
    PullOptions o = { .patience = 30, .tries = 8 };
    const Option options[] = {
        { OPT_FLAG, "--list", NULL, &o.list, "the published models, and which are here", 0, 0 },
        { OPT_STR, "--mirror", "URL", &o.mirror,
          "the folder that NAME's file is in; default: the line in ~/.config/ds4/mirror", 0, 0 },
        { OPT_STR, "--url", "URL", &o.url, "any GGUF instead of a NAME", 0, 0 },
        { OPT_STR, "--sha256", "HEX", &o.sha256,
          "what the file's must be; default: what the server tells (X-Linked-Etag), if it does", 0,
          0 },
        { OPT_U64, "--size", "N", &o.size, "the bytes that the file must have", 1, 1e15 },
        { OPT_STR, "--dir", "DIR", &o.dir, "where to; default ~/.local/share/ds4", 0, 0 },
        { OPT_INT, "--patience", "N", &o.patience,
          "seconds without a byte until it is tried again; default 30", 1, 3600 },
        { OPT_INT, "--tries", "N", &o.tries, "tries in a row that bring nothing; default 8", 1,
          1000 },
        { 0 },
    };
    const Usage usage = {
        .usage = "ds4 pull [options] [NAME]", .about = about, .tables = { options }, .max_args = 1
    };
    const char *arg = NULL;
    int status = cli_parse(&usage, argc, argv, &arg, NULL);
    if (status >= 0)
        return status;
    ds4_err err = { 0 };
    Wanted w = { 0 };
    char name[256];
    if (o.list && (arg || o.url || o.mirror || o.sha256 || o.size))
        return cli_usage_error("--list downloads nothing, so it takes --dir only");
    if (o.list) {
        status = find_folder(w.folder, &o);
        return status >= 0 ? status : print_list(w.folder, &err) ? 0 : cli_fail(&err);
    }
    status = settle(&w, &o, arg, name, sizeof name);
    if (status >= 0)
        return status;
    cli_catch_interrupt(NULL);
    return pull(&w, &o, &err) ? 0 : report(&w, &err);
}
