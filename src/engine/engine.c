/* engine.c - opening and closing, and what an engine says about itself. */
#include "engine.h"
#include "../ops/decorate.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Refuse before anything large is taken. */
static bool obey_plan(ds4_engine *e, ds4_err *err)
{
    ds4_plan p;
    char line[200];

    engine_plan(&p, &e->set, &e->shape, &e->bytes, e->gguf.file_bytes);
    if (!ds4_plan_check(&p, err))
        return false;
    if (e->log && p.mapped && p.available && p.total > p.available) {
        snprintf(line, sizeof line,
                 "the model and its state are %.1f GB, %.1f GB are free: "
                 "weights will be read from disk again and again",
                 gb(p.total), gb(p.available));
        e->log(e->user, line);
    }
    return true;
}

/* Every session's part of what was taken for all. */
static void seat_sessions(ds4_engine *e, uint64_t marks, uint64_t block)
{
    for (int i = 0; i < e->set.sessions; i++) {
        ds4_session *s = &e->seat[i];
        *s = (ds4_session){ .engine = e, .slot = i };
        s->token = e->session_token + (size_t)i * (size_t)e->set.context;
        s->own_logits = e->session_logits + (size_t)i * (size_t)e->shape.vocab;
        marks_init(s, e->session_marks + (size_t)i * (size_t)marks, block);
    }
}

static bool take_memory(ds4_engine *e, ds4_err *err)
{
    const size_t sessions = (size_t)e->set.sessions, vocab = (size_t)e->shape.vocab;
    const size_t outs = (size_t)e->set.max_logits;

    const uint64_t block = marks_block(&e->set, &e->shape);
    const uint64_t marks = marks_bytes(&e->set, &e->shape);

    e->session = calloc(sessions, sizeof *e->session);
    e->seat = calloc(sessions, sizeof *e->seat);
    e->session_token = calloc(sessions * (size_t)e->set.context, sizeof *e->session_token);
    e->session_logits = calloc(sessions * vocab, sizeof *e->session_logits);
    e->session_marks = calloc(sessions, (size_t)marks);
    e->span = calloc(sessions, sizeof *e->span);
    e->first_logits = calloc(sessions + 1, sizeof *e->first_logits);
    e->token = calloc((size_t)e->set.max_rows, sizeof *e->token);
    e->out = calloc(outs, sizeof *e->out);
    e->choices = calloc(vocab, sizeof *e->choices);
    e->adjusted = calloc(vocab, sizeof *e->adjusted);
    if (!(e->session && e->seat && e->session_token && e->session_logits && e->session_marks &&
          e->span && e->first_logits && e->token && e->out && e->choices && e->adjusted))
        return fail(err, DS4_ENOMEM, "no memory for %zu sessions of %d tokens", sessions,
                    e->set.context);
    seat_sessions(e, marks, block);
    return true;
}

static bool load_vocab(ds4_engine *e, ds4_err *err)
{
    e->vocab = vocab_load(&e->gguf, err);
    if (!e->vocab)
        return false;
    return vocab_size(e->vocab) <= e->shape.vocab ||
           fail(err, DS4_EFORMAT, "the tokenizer has %d tokens, the model only %d",
                vocab_size(e->vocab), e->shape.vocab);
}

static void describe(ds4_engine *e)
{
    const GgufKv *kv = gguf_kv(&e->gguf, "general.name");
    Str name = STR("unnamed");

    if (kv)
        gguf_str(kv, &name);
    snprintf(e->name, sizeof e->name, "%.*s", STR_ARG(name));
    snprintf(e->about, sizeof e->about, "%s, %d layers, %.2f GB, on %s, %d x %d tokens%s", e->name,
             e->shape.n_layers, gb(e->bytes.weights), e->be->name, e->set.sessions, e->set.context,
             e->shape.rounding ? "" : ", unrounded");
}

static bool open_parts(ds4_engine *e, const ds4_options *opt, ds4_err *err)
{
    if (!engine_check(&e->gguf, opt, &e->shape, &e->bytes, err) ||
        !settings_make(&e->set, opt, &e->shape, err) ||
        !settings_place(&e->set, opt, &e->shape, &e->bytes, e->gguf.file_bytes, err) ||
        (!opt->share_device && !device_lock(&e->lock, e->set.device, err)) || !load_vocab(e, err) ||
        !obey_plan(e, err) || !take_memory(e, err))
        return false;
    e->set.backend.vocab = e->vocab;
    e->be = backend_open(e->set.device, &e->shape, &e->set.backend, err);
    if (!e->be || !model_init(&e->model, &e->gguf, &e->shape, e->be, e->progress, e->user, err) ||
        !kv_init(&e->kv, &e->shape, e->be, e->set.sessions, e->set.context, e->set.max_rows, err) ||
        !run_init(&e->run, &e->model, &e->kv, e->be, e->set.max_rows, e->set.max_logits, err))
        return false;
    e->run.cancel = &e->cancel;
    describe(e);
    return true;
}

ds4_engine *engine_open_bytes(const void *gguf, size_t n, const ds4_options *opt, ds4_err *err)
{
    ds4_engine *e = calloc(1, sizeof *e);

    if (!e) {
        fail(err, DS4_ENOMEM, "no memory for an engine");
        return NULL;
    }
    atomic_init(&e->cancel, false);
    e->progress = opt->progress;
    e->log = opt->log;
    e->user = opt->user;
    e->file = gguf;
    if (gguf_parse(&e->gguf, gguf, n, err) && open_parts(e, opt, err))
        return e;
    ds4_engine_close(e);
    return NULL;
}

ds4_engine *ds4_engine_open(const ds4_options *opt, ds4_err *err)
{
    Map map;

    if (!opt->model) {
        fail(err, DS4_EINVAL, "no model is named");
        return NULL;
    }
    if (!map_open(&map, opt->model, err))
        return NULL;
    ds4_err inner = { 0 };
    ds4_engine *e = engine_open_bytes(map.p, map.n, opt, &inner);
    if (e) {
        e->map = map;
        return e;
    }
    map_close(&map);
    fail_of_file(err, opt->model, &inner);
    return NULL;
}

void ds4_engine_close(ds4_engine *e)
{
    if (!e)
        return;
    if (e->be) {
        run_release(&e->run);
        kv_release(&e->kv, e->be);
        model_release(&e->model, e->be);
        backend_close(e->be);
    }
    vocab_free(e->vocab);
    gguf_release(&e->gguf);
    map_close(&e->map);
    device_lock_release(&e->lock);
    free(e->session);
    free(e->seat);
    free(e->session_token);
    free(e->session_logits);
    free(e->session_marks);
    free(e->span);
    free(e->first_logits);
    free(e->token);
    free(e->out);
    free(e->choices);
    free(e->adjusted);
    free(e);
}

const char *ds4_engine_describe(const ds4_engine *e) { return e->about; }

ds4_info ds4_engine_info(const ds4_engine *e)
{
    return (ds4_info){
        .name = e->name,
        .n_layers = e->shape.n_layers,
        .vocab = e->shape.vocab,
        .context_max = e->shape.context,
        .context = e->set.context,
        .sessions = e->set.sessions,
        .max_rows = e->set.max_rows,
        .max_logits = e->set.max_logits,
        .rounded = e->shape.rounding,
        .weight_bytes = e->bytes.weights,
        .step_bytes = e->bytes.step,
        .kv_bytes = kv_slot_bytes(&e->shape, e->set.context, e->set.max_rows),
    };
}

const ds4_op_time *ds4_engine_ops(const ds4_engine *e, int *n) { return timed_table(e->be, n); }

bool ds4_engine_importance(const ds4_engine *e, ds4_importance *out)
{
    return collect_sums(e->be, out);
}

void ds4_engine_ops_reset(ds4_engine *e) { timed_reset(e->be); }

const ds4_vocab *ds4_engine_vocab(const ds4_engine *e) { return e->vocab; }

void ds4_cancel(ds4_engine *e) { atomic_store(&e->cancel, true); }
