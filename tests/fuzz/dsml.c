/* dsml.c - any text as an answer. However it is cut, the same is told: whole
 * UTF-8, calls in order, each complete one with a JSON object. The first byte
 * chooses the options. The strict parser must only end. */
#include "../stream_answer.h"
#include "../../src/json/json.h"
#include "../../src/text/dsml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Tools begin with f; parameters with s are strings, with n are none. */
static bool declared(void *user, Str tool)
{
    (void)user;
    return tool.n && tool.p[0] == 'f';
}

static int is_string(void *user, Str tool, Str parameter)
{
    (void)user;
    (void)tool;
    return parameter.n && parameter.p[0] == 's' ? 1 : parameter.n && parameter.p[0] == 'n' ? 0 : -1;
}

/* The arguments of the last call, as far as they were told. */
typedef struct {
    Answer answer;
    Bytes arguments;
} Checked;

static void check_event(void *user, const StreamEvent *e)
{
    Checked *c = user;
    answer_event(&c->answer, e);
    if (e->kind == STREAM_CALL_BEGIN)
        bytes_clear(&c->arguments);
    if (e->kind == STREAM_CALL_ARGS)
        bytes_put(&c->arguments, e->bytes.p, e->bytes.n);
    if (e->kind == STREAM_CALL_END) {
        /* A value that is as deep as may be lies one deeper here. */
        Json *o = json_parse(bytes_view(&c->arguments), 2 * JSON_DEPTH, "arguments", NULL);
        if (!json_is_object(o))
            abort();
        json_free(o);
    }
}

static void check(const StreamOptions *opt, Str text, size_t first, size_t n, Bytes *log)
{
    Checked c = { 0 };
    Stream *s = stream_new(NULL, opt, check_event, &c);
    if (!s)
        abort();
    bool more = true;
    for (size_t at = 0, take = first; at < text.n && more; at += take, take = n) {
        take = MIN(take, text.n - at);
        more = stream_text(s, (Str){ text.p + at, take });
    }
    stream_finish(s);
    if (c.answer.broken || stream_failed(s) || stream_state(s) != STREAM_DONE)
        abort();
    if (log->p && !str_eq(bytes_view(log), bytes_view(&c.answer.log)))
        abort();
    stream_free(s);
    bytes_release(log);
    bytes_release(&c.arguments);
    *log = c.answer.log;
    bytes_byte(log, 0);
    log->n--;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const Str stop[] = { { "STOP", 4 }, { "\n\n", 2 } };
    int flags = size ? data[0] : 0;
    Str text = { (const char *)data + (size > 0), size - (size > 0) };
    const StreamOptions opt = { .thinking = flags & 1,
                                .stop = stop,
                                .n_stop = flags & 2 ? COUNT(stop) : 0,
                                .tools = { .declared = flags & 4 ? NULL : declared,
                                           .is_string = flags & 8 ? is_string : NULL } };
    Bytes log = { 0 };
    check(&opt, text, text.n, text.n, &log);
    check(&opt, text, 1, 1, &log);
    check(&opt, text, text.n / 2, 7, &log);
    bytes_release(&log);
    DsmlAnswer a;
    if (dsml_parse(&a, text, opt.thinking, NULL))
        dsml_release(&a);
    return 0;
}
