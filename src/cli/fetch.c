/* fetch.c - attempts at a download until all of it is there.
 *
 * An attempt asks for what is missing. Nothing of its body is believed before its
 * header has been judged: that it is the same file as before, as long as it should
 * be, and fits the disk. */
#include "fetch.h"
#include "cli.h"
#include "curl.h"
#include "download.h"
#include <errno.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <time.h>

typedef struct {
    const FetchOptions *o;
    Curl curl;
    CURL *h;
    Download part;
    Response r;
    bool judged, ignored; /* of this attempt: the header was looked at; the body is of no use */
    bool anew;            /* the next attempt begins with the first byte */
    bool fatal;           /* no other attempt can help */
    ds4_err *err;
} Fetch;

static bool give_up(Fetch *f, bool ok)
{
    f->fatal = f->fatal || !ok;
    return ok;
}

/* ---- URLs ------------------------------------------------------------------------------- */

void fetch_url(char *out, size_t room, const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    const size_t all = strcspn(host, "?#"), authority = strcspn(host, "/?#");
    size_t from = authority;
    while (from && host[from - 1] != '@')
        from--;
    snprintf(out, room, "%.*s%.*s", (int)(host - url), url, (int)(all - from), host + from);
}

/* Of what the part is, in the words of its note. */
static bool same_url(const Fetch *f)
{
    char url[sizeof f->part.info.url];
    fetch_url(url, sizeof url, f->o->url);
    return strcmp(f->part.info.url, url) == 0;
}

/* ---- judging a header ------------------------------------------------------------------- */

/* Of the whole file; 0: the server does not say. */
static uint64_t told_bytes(const Response *r)
{
    if (r->status == 206)
        return r->total;
    return r->has_length ? r->length : 0;
}

static bool right_size(Fetch *f, uint64_t bytes)
{
    const FetchOptions *o = f->o;
    if (bytes && f->r.linked_size && bytes != f->r.linked_size)
        return fail(f->err, DS4_EFORMAT, "the server names a file of %llu bytes and sends %llu",
                    (unsigned long long)f->r.linked_size, (unsigned long long)bytes);
    if (bytes && o->most && (bytes < o->least || bytes > o->most))
        return fail(f->err, DS4_EFORMAT, "the server has %llu bytes, expected %s%llu: another file",
                    (unsigned long long)bytes, o->least == o->most ? "" : "about ",
                    (unsigned long long)o->least);
    return true;
}

static bool right_sum(Fetch *f)
{
    if (!f->o->sha256 || !f->r.sha256[0] || strcmp(f->o->sha256, f->r.sha256) == 0)
        return true;
    return fail(f->err, DS4_EFORMAT, "the server's SHA-256 is %s, expected %s", f->r.sha256,
                f->o->sha256);
}

static bool has_room(Fetch *f, uint64_t missing)
{
    struct statvfs disk;
    char a[16], b[16];
    if (statvfs(f->part.tmp, &disk) != 0)
        return true;
    const uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    return missing <= free_bytes ||
           fail(f->err, DS4_EIO, "%s are missing, and the disk has %s free", cli_size(a, missing),
                cli_size(b, free_bytes));
}

/* Whether a 206 goes on with the file that the part is of. */
static bool goes_on(const Fetch *f)
{
    const Response *r = &f->r;
    const DownloadInfo *info = &f->part.info;
    if (!r->has_range || r->first != f->part.have || (info->bytes && r->total != info->bytes))
        return false;
    if (info->sha256[0] && r->sha256[0] && strcmp(info->sha256, r->sha256) != 0)
        return false;
    return !info->etag[0] || !r->etag[0] || !same_url(f) || strcmp(info->etag, r->etag) == 0;
}

static bool begin(Fetch *f, uint64_t bytes)
{
    DownloadInfo info = { .bytes = bytes ? bytes : f->r.linked_size };
    if (f->part.have)
        cli_warn("the file is sent from its beginning again");
    fetch_url(info.url, sizeof info.url, f->o->url);
    memcpy(info.etag, f->r.etag, sizeof info.etag);
    memcpy(info.modified, f->r.modified, sizeof info.modified);
    snprintf(info.sha256, sizeof info.sha256, "%s", f->o->sha256 ? f->o->sha256 : f->r.sha256);
    return download_begin(&f->part, &info, f->err);
}

/* False ends this attempt: for good where `fatal`. */
static bool judge(Fetch *f)
{
    const int status = f->r.status;
    const uint64_t bytes = told_bytes(&f->r);
    f->judged = true;
    if (status != 200 && status != 206) {
        f->ignored = true; /* what an error says is for people in browsers */
        return true;
    }
    if (status == 206 && !goes_on(f)) {
        f->anew = f->part.have > 0;
        f->fatal = !f->anew;
        return fail(f->err, DS4_EIO, "the server sends a part of another file");
    }
    const uint64_t have = status == 206 ? f->part.have : 0;
    return give_up(f, right_size(f, bytes) && right_sum(f) &&
                          has_room(f, bytes > have ? bytes - have : 0) &&
                          (status == 206 || begin(f, bytes)));
}

/* ---- curl's callbacks ------------------------------------------------------------------ */

static size_t on_header(char *p, size_t size, size_t n, void *user)
{
    Fetch *f = user;
    response_line(&f->r, (Str){ p, size * n });
    return size * n;
}

static bool is_gguf(Fetch *f)
{
    char magic[4];
    if (!download_read(&f->part, 0, magic, sizeof magic, f->err))
        return false;
    if (memcmp(magic, "GGUF", 4) == 0)
        return true;
    download_discard(&f->part);
    return fail(f->err, DS4_EFORMAT, "the server sends something that is no GGUF file");
}

static bool take(Fetch *f, const char *p, size_t n)
{
    const uint64_t had = f->part.have;
    const uint64_t most = f->part.info.bytes ? f->part.info.bytes : f->o->most;
    if (most && n > most - MIN(had, most)) {
        download_discard(&f->part);
        return fail(f->err, DS4_EFORMAT, "the server sends more than the %llu bytes of the file",
                    (unsigned long long)most);
    }
    return download_append(&f->part, p, n, f->err) && (had >= 4 || f->part.have < 4 || is_gguf(f));
}

static size_t on_body(char *p, size_t size, size_t n, void *user)
{
    Fetch *f = user;
    if (!f->judged && !judge(f))
        return CURL_WRITEFUNC_ERROR;
    if (f->ignored)
        return size * n;
    return give_up(f, take(f, p, size * n)) ? size * n : CURL_WRITEFUNC_ERROR;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    const Fetch *f = user;
    (void)down_total, (void)down, (void)up_total, (void)up;
    if (f->part.have)
        cli_progress(NULL, "fetching", f->part.have, f->part.info.bytes);
    return cli_interrupted();
}

/* ---- an attempt ------------------------------------------------------------------------ */

/* HTTP and nothing else, whereto redirects may lead; who began with TLS stays there. Their names
 * are understood since libcurl 7.85, before that bits of options that are deprecated now. */
static bool keep_to_http(Fetch *f)
{
    const Curl *c = &f->curl;
    const bool secure = strncmp(f->o->url, "https:", 6) == 0;
    const CURLoption protocols = 181, redirects = 182;
    const long https = CURLPROTO_HTTPS, both = CURLPROTO_HTTP | CURLPROTO_HTTPS;
    if (c->setopt(f->h, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
        c->setopt(f->h, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https") == CURLE_OK)
        return true;
    return (c->setopt(f->h, protocols, both) == CURLE_OK &&
            c->setopt(f->h, redirects, secure ? https : both) == CURLE_OK) ||
           fail(f->err, DS4_EIO, "this libcurl cannot be kept to http and https");
}

static bool set_up(Fetch *f)
{
    const Curl *c = &f->curl;
    c->setopt(f->h, CURLOPT_URL, f->o->url);
    c->setopt(f->h, CURLOPT_USERAGENT, "ds4/" DS4_VERSION);
    c->setopt(f->h, CURLOPT_NOSIGNAL, 1L);
    c->setopt(f->h, CURLOPT_FOLLOWLOCATION, 1L);
    c->setopt(f->h, CURLOPT_MAXREDIRS, 10L);
    c->setopt(f->h, CURLOPT_CONNECTTIMEOUT, (long)f->o->patience_s);
    c->setopt(f->h, CURLOPT_LOW_SPEED_LIMIT, 1L);
    c->setopt(f->h, CURLOPT_LOW_SPEED_TIME, (long)f->o->patience_s);
    c->setopt(f->h, CURLOPT_HEADERFUNCTION, on_header);
    c->setopt(f->h, CURLOPT_HEADERDATA, (void *)f);
    c->setopt(f->h, CURLOPT_WRITEFUNCTION, on_body);
    c->setopt(f->h, CURLOPT_WRITEDATA, (void *)f);
    c->setopt(f->h, CURLOPT_NOPROGRESS, 0L);
    c->setopt(f->h, CURLOPT_XFERINFOFUNCTION, on_progress);
    c->setopt(f->h, CURLOPT_XFERINFODATA, (void *)f);
    return keep_to_http(f);
}

/* A rest is asked for where something will tell that it is one: a sum that was known before,
 * or the server, which compares its validator. */
static bool may_resume(const Fetch *f)
{
    const DownloadInfo *info = &f->part.info;
    if (!f->part.have || f->anew)
        return false;
    if (f->o->sha256)
        return strcmp(f->o->sha256, info->sha256) == 0;
    return info->sha256[0] || (same_url(f) && (info->etag[0] || info->modified[0]));
}

/* Asks for what is missing. The list of headers is the caller's to free. */
static struct curl_slist *ask(Fetch *f)
{
    const DownloadInfo *info = &f->part.info;
    char range[32], line[256];
    const bool resume = may_resume(f), same = same_url(f);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)f->part.have);
    f->curl.setopt(f->h, CURLOPT_RANGE, resume ? range : NULL);
    struct curl_slist *list = NULL;
    if (resume && same && (info->etag[0] || info->modified[0])) {
        snprintf(line, sizeof line, "If-Range: %s", info->etag[0] ? info->etag : info->modified);
        list = f->curl.append(NULL, line);
    }
    f->curl.setopt(f->h, CURLOPT_HTTPHEADER, list);
    return list;
}

static bool all_there(const Fetch *f)
{
    return f->part.have && f->part.info.bytes && f->part.have == f->part.info.bytes;
}

static bool may_pass(CURLcode code)
{
    static const CURLcode passing[] = {
        CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
        CURLE_COULDNT_CONNECT,      CURLE_PARTIAL_FILE,
        CURLE_OPERATION_TIMEDOUT,   CURLE_GOT_NOTHING,
        CURLE_SEND_ERROR,           CURLE_RECV_ERROR,
        CURLE_SSL_CONNECT_ERROR,    CURLE_HTTP2,
        CURLE_HTTP2_STREAM,
    };
    for (size_t i = 0; i < COUNT(passing); i++) {
        if (passing[i] == code)
            return true;
    }
    return false;
}

/* What an attempt came to that curl calls a success. */
static bool conclude(Fetch *f)
{
    const int status = f->r.status;
    if (status == 416 && f->part.have) {
        f->anew = true;
        return fail(f->err, DS4_EIO, "the server has no such rest");
    }
    if (status != 200 && status != 206) {
        f->fatal = status != 408 && status != 429 && status < 500;
        return fail(f->err, DS4_EIO, "the server answers with status %d%s", status,
                    status == 404 ? ": there is no such file" : "");
    }
    if (f->part.have < 4)
        return give_up(f, fail(f->err, DS4_EFORMAT, "the server sends an empty file"));
    if (f->part.info.bytes)
        return all_there(f) || fail(f->err, DS4_EIO, "the server sent too little");
    return true; /* nobody said how long it is */
}

static bool attempt(Fetch *f)
{
    f->r = (Response){ 0 };
    f->judged = f->ignored = false;
    struct curl_slist *headers = ask(f);
    f->anew = false;
    CURLcode code = f->curl.perform(f->h);
    f->curl.free_list(headers);
    if (cli_interrupted())
        return give_up(f, fail(f->err, DS4_ECANCELED, "interrupted"));
    if (f->fatal || f->anew)
        return false;
    if (code == CURLE_OK)
        return conclude(f);
    f->fatal = !may_pass(code);
    return fail(f->err, DS4_EIO, "%s", f->curl.text(code));
}

/* ---- all attempts ----------------------------------------------------------------------- */

/* Half a second, then twice as long each time, at most half a minute. Ctrl-C ends it. */
static void wait_before(int failures, int retry_after_s)
{
    int64_t ms = MIN((int64_t)500 << MIN(failures, 6), 30000);
    ms = MAX(ms, (int64_t)retry_after_s * 1000);
    for (; ms > 0 && !cli_interrupted(); ms -= 100)
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
}

static bool try_on(Fetch *f)
{
    int failures = 0;
    while (!all_there(f)) {
        const uint64_t had = f->part.have;
        if (attempt(f))
            return true;
        if (f->fatal)
            return false;
        failures = f->part.have > had ? 0 : failures + 1;
        if (failures >= f->o->tries)
            return false;
        if (!f->anew) {
            cli_warn("%s: trying again", f->err->msg);
            wait_before(failures, f->r.retry_after);
        }
        if (cli_interrupted())
            return fail(f->err, DS4_ECANCELED, "interrupted");
    }
    return true;
}

static bool verify(Fetch *f, Fetched *out)
{
    const char *want = f->o->sha256 ? f->o->sha256 : f->part.info.sha256;
    out->bytes = f->part.have;
    out->told = want[0] && !f->o->sha256;
    if (!right_size(f, f->part.have) || !download_sha256(&f->part, out->sha256, f->err))
        return false;
    if (!want[0] || strcmp(want, out->sha256) == 0)
        return true;
    download_discard(&f->part);
    return fail(f->err, DS4_EFORMAT, "its SHA-256 is %s, expected %s: nothing was installed",
                out->sha256, want);
}

static void say_what_stays(const Fetch *f)
{
    char a[16], b[16];
    const uint64_t have = f->part.have, all = f->part.info.bytes;
    cli_warn("%s%s%s are in %s: the same command goes on from there", cli_size(a, have),
             all ? " of " : "", all ? cli_size(b, all) : "", f->part.tmp);
}

static bool run(Fetch *f, Fetched *out)
{
    if (!try_on(f)) {
        cli_progress_end();
        if (f->part.have < 4)
            download_discard(&f->part);
        else if (f->err->code != DS4_EFORMAT)
            say_what_stays(f);
        return false;
    }
    cli_progress_end();
    return verify(f, out) && download_install(&f->part, f->err);
}

bool fetch(const FetchOptions *o, Fetched *out, ds4_err *err)
{
    Fetch f = { .o = o, .err = err };
    bool ok =
        download_open(&f.part, o->path, err) && curl_load(&f.curl, err) &&
        ((f.h = f.curl.easy_init()) != NULL || fail(err, DS4_ENOMEM, "no memory for libcurl"));
    if (ok) {
        ok = set_up(&f) && run(&f, out);
        f.curl.cleanup(f.h);
    }
    download_close(&f.part);
    return ok;
}
