/* generate.c - from logits to tokens, from tokens to events. */
#include "generate.h"
#include "budget.h"
#include "collect.h"
#include "repeat.h"
#include "tools_in.h"
#include "../json/json.h"
#include "../text/stream.h"
#include <math.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_TOP = 20 };

static const char no_memory[] = "no memory for the answer";

struct Generation {
    Job *job;
    const GenerateEnv *env;
    Controls control;
    Stream *stream;
    GrammarRun *run; /* NULL: free text */

    /* sampling */
    float temperature, top_p, min_p;
    int top_k;
    uint64_t rng;
    ds4_bias *bias; /* the client's, then one for each token that was sampled */
    int n_bias, cap_bias;
    int32_t *penalty; /* [vocab] 1 + index of its bias; NULL: there are no penalties */

    Tokens sampled; /* without the end-of-sentence */
    int most;       /* tokens that may be sampled */
    bool most_is_context;
    int thought; /* tokens of thinking */
    bool signed_thought;
    char handle[RECALL_HANDLE];

    /* logprobs of tokens whose text was not told yet */
    TokenLogprob *logprob; /* [tokens][1 + top_logprobs] */
    size_t n_logprob, cap_logprob;

    Repeat repeat;
    RepeatCalls calls;
    char loop[160];

    Collected told;
    char call_id[64];
    Bytes name; /* of the call that is being told */
    const Tool *tool;
    bool failed; /* no memory */
    bool over;
    Event end;
    ApiError error;
    int cached;
    double prompt_ms;
    int64_t begun_ns;
};

static void on_stream(void *user, const StreamEvent *e);
static void finish(Generation *g, enum Finish how);
static void fail_with(Generation *g, const char *what);

/* ---- beginning ------------------------------------------------------------------- */

static bool is_declared(void *user, Str name)
{
    const Generation *g = user;
    return tools_find(&g->job->turn, name) != NULL;
}

static bool is_custom(void *user, Str name)
{
    const Generation *g = user;
    const Tool *tool = tools_find(&g->job->turn, name);
    return tool && tool->kind == TOOL_CUSTOM;
}

/* Whether a parameter is a string, by its schema; -1: that does not say. */
static int is_string(void *user, Str name, Str parameter)
{
    const Generation *g = user;
    const Tool *tool = tools_find(&g->job->turn, name);
    const Json *properties = tool ? json_member(tool->parameters, "properties") : NULL;
    char key[256];
    if (!properties || parameter.n >= sizeof key)
        return -1;
    memcpy(key, parameter.p, parameter.n);
    key[parameter.n] = 0;
    const Json *type = json_member(json_member(properties, key), "type");
    return json_is_text(type) ? json_is(type, "string") : -1;
}

static bool open_stream(Generation *g)
{
    const Turn *t = &g->job->turn;
    bool markup = t->n_tools && t->choice != CHOOSE_NONE;
    StreamOptions opt = { .thinking = g->job->thinking, .stop = t->stop, .n_stop = t->n_stop };
    if (markup)
        opt.tools = (StreamTools){ is_declared, is_string, is_custom, g };
    g->stream = stream_new(g->env->vocab, &opt, on_stream, g);
    return g->stream != NULL;
}

static float or_default(float given, float usual) { return isnan(given) ? usual : given; }

static void set_sampling(Generation *g)
{
    const Turn *t = &g->job->turn;
    g->temperature = or_default(t->temperature, 1);
    g->top_p = or_default(t->top_p, 1);
    g->min_p = or_default(t->min_p, 0.05f);
    g->top_k = MAX(t->top_k, 0);
    g->rng = t->seed;
    if (!t->has_seed)
        RAND_bytes((unsigned char *)&g->rng, sizeof g->rng);
}

static bool set_bias(Generation *g)
{
    const Turn *t = &g->job->turn;
    bool penalties = t->presence_penalty != 0 || t->frequency_penalty != 0;
    g->cap_bias = (int)t->n_bias + 16;
    g->bias = calloc((size_t)g->cap_bias, sizeof *g->bias);
    if (penalties)
        g->penalty = calloc((size_t)vocab_size(g->env->vocab), sizeof *g->penalty);
    if (!g->bias || (penalties && !g->penalty))
        return false;
    for (size_t i = 0; i < t->n_bias; i++)
        g->bias[g->n_bias++] = (ds4_bias){ t->bias[i].token, t->bias[i].bias };
    return true;
}

static void set_limit(Generation *g)
{
    const Turn *t = &g->job->turn;
    int room = g->env->context - (int)g->job->prompt.n;
    g->most_is_context = !t->max_tokens || t->max_tokens > room;
    g->most = g->most_is_context ? room : t->max_tokens;
}

Generation *generation_new(Job *j, const GenerateEnv *env, ApiError *e)
{
    ds4_err err = { 0 };
    Generation *g = calloc(1, sizeof *g);
    if (g) {
        g->job = j;
        g->env = env;
        g->control = *vocab_controls(env->vocab);
        set_sampling(g);
        set_limit(g);
        recall_handle(env->recall, g->handle);
    }
    if (g && open_stream(g) && set_bias(g) &&
        (!j->grammar || (g->run = grammar_start(j->grammar, &err))))
        return g;
    generation_free(g);
    api_fail(e, 503, "out_of_memory", NULL, "no memory for an answer");
    return NULL;
}

void generation_free(Generation *g)
{
    if (!g)
        return;
    stream_free(g->stream);
    grammar_end(g->run);
    tokens_release(&g->sampled);
    collect_release(&g->told);
    bytes_release(&g->name);
    free(g->bias);
    free(g->penalty);
    free(g->logprob);
    free(g);
}

void generation_begin(Generation *g, int cached, double prompt_ms)
{
    g->cached = cached;
    g->prompt_ms = prompt_ms;
    g->begun_ns = clock_ns();
}

Usage generation_usage(const Generation *g)
{
    return (Usage){ .prompt = (int)g->job->prompt.n,
                    .cached = g->cached,
                    .completion = (int)g->sampled.n,
                    .reasoning = g->thought,
                    .prompt_ms = g->prompt_ms,
                    .completion_ms = g->begun_ns ? (double)(clock_ns() - g->begun_ns) / 1e6 : 0 };
}

const char *generation_ending(const Generation *g)
{
    static const char *const names[] = { [FINISH_STOP] = "stop",
                                         [FINISH_LENGTH] = "length",
                                         [FINISH_TOOL_CALLS] = "tool_calls",
                                         [FINISH_STOP_SEQUENCE] = "stop_sequence",
                                         [FINISH_CONTEXT] = "context",
                                         [FINISH_LOOP] = "loop" };
    return !g->over ? "unfinished" : g->error.status ? g->error.code : names[g->end.finish];
}

const char *generation_loop(const Generation *g) { return g->loop; }

static void add_name(AnswerNames *names, const char *name)
{
    snprintf(names->name[names->n++ % ANSWER_NAMES], sizeof names->name[0], "%s", name);
}

AnswerNames generation_names(const Generation *g)
{
    AnswerNames names = { 0 };
    if (g->signed_thought)
        add_name(&names, g->handle);
    for (size_t i = 0; i < g->told.n_calls; i++)
        add_name(&names, g->told.calls[i].id);
    return names;
}

bool answer_has_name(const AnswerNames *names, Str name)
{
    for (size_t i = 0; i < MIN(names->n, (size_t)ANSWER_NAMES) && name.n; i++)
        if (str_eq(str_of(names->name[i]), name))
            return true;
    return false;
}

/* ---- telling ---------------------------------------------------------------------- */

static void tell(Generation *g, const Event *e)
{
    collect(&g->told, e);
    job_tell(g->job, e);
}

/* Where thinking ends clients are given the handle of the answer. */
static void sign_thought(Generation *g)
{
    if (!g->job->thinking || g->signed_thought)
        return;
    g->signed_thought = true;
    const Event e = { .kind = EV_REASONING, .handle = g->handle };
    tell(g, &e);
}

static void tell_text(Generation *g, Str bytes)
{
    size_t width = 1 + (size_t)g->job->turn.top_logprobs;
    const Event e = { .kind = EV_TEXT,
                      .bytes = bytes,
                      .logprobs = g->n_logprob ? g->logprob : NULL,
                      .n_logprobs = g->n_logprob / width,
                      .logprob_width = width };
    tell(g, &e);
    g->n_logprob = 0;
}

static void tell_call(Generation *g, const StreamEvent *s)
{
    Event e = { .index = s->call, .call_id = g->call_id };
    switch (s->kind) {
    case STREAM_CALL_BEGIN:
        e.kind = EV_TOOL_BEGIN;
        bytes_clear(&g->name);
        bytes_put(&g->name, s->bytes.p, s->bytes.n);
        g->tool = tools_find(&g->job->turn, s->bytes);
        new_id(g->call_id, g->job->turn.api == API_MESSAGES ? "toolu_" : "call_");
        break;
    case STREAM_CALL_ARGS:
        e.kind = EV_TOOL_ARGS;
        e.bytes = s->bytes;
        break;
    default: e.kind = EV_TOOL_END;
    }
    e.tool = g->tool;
    e.name = bytes_view(&g->name);
    tell(g, &e);
}

static void on_stream(void *user, const StreamEvent *s)
{
    Generation *g = user;
    if (s->kind == STREAM_REASONING) {
        const Event e = { .kind = EV_REASONING, .bytes = s->bytes };
        tell(g, &e);
        return;
    }
    sign_thought(g);
    if (s->kind == STREAM_TEXT)
        tell_text(g, s->bytes);
    else
        tell_call(g, s);
}

/* ---- logprobs ----------------------------------------------------------------------- */

static bool grow_logprobs(Generation *g, size_t more)
{
    if (g->n_logprob + more <= g->cap_logprob)
        return true;
    size_t cap = 2 * (g->n_logprob + more);
    TokenLogprob *p = realloc(g->logprob, cap * sizeof *p);
    if (!p)
        return false;
    g->logprob = p;
    g->cap_logprob = cap;
    return true;
}

/* The token and the likeliest in its place, before anything was held to a form. */
static void note_logprobs(Generation *g, const ds4_session *s, int32_t token)
{
    ds4_choice top[MOST_TOP];
    int k = MIN(g->job->turn.top_logprobs, MOST_TOP);
    if (!grow_logprobs(g, 1 + (size_t)k)) {
        g->failed = true;
        return;
    }
    TokenLogprob *row = g->logprob + g->n_logprob;
    row[0] = (TokenLogprob){ vocab_bytes(g->env->vocab, token), ds4_logprob(s, token) };
    int n = ds4_top(s, top, k);
    for (int i = 0; i < k; i++)
        row[1 + i] =
            i < n ? (TokenLogprob){ vocab_bytes(g->env->vocab, top[i].token), top[i].logprob }
                  : (TokenLogprob){ { NULL, 0 }, -INFINITY };
    g->n_logprob += 1 + (size_t)k;
}

/* ---- sampling ------------------------------------------------------------------------- */

static bool add_penalty(Generation *g, int32_t token)
{
    const Turn *t = &g->job->turn;
    if (!g->penalty)
        return true;
    if (!g->penalty[token]) {
        if (g->n_bias == g->cap_bias) {
            ds4_bias *more = realloc(g->bias, 2 * (size_t)g->cap_bias * sizeof *more);
            if (!more)
                return false;
            g->bias = more;
            g->cap_bias *= 2;
        }
        g->bias[g->n_bias++] = (ds4_bias){ token, -t->presence_penalty };
        g->penalty[token] = g->n_bias;
    }
    g->bias[g->penalty[token] - 1].add -= t->frequency_penalty;
    return true;
}

/* A model that is to be held to a form is told the form first: what may come
 * next. Tags are not a matter of taste: the likeliest is taken. */
static int32_t choose(Generation *g, const ds4_session *s)
{
    enum StreamState state = stream_state(g->stream);
    Str last =
        g->sampled.n ? vocab_bytes(g->env->vocab, g->sampled.id[g->sampled.n - 1]) : (Str){ 0 };
    if (state == STREAM_IN_THINK && !(g->run && grammar_constrains(g->run)) &&
        budget_spent(g->job->turn.think_budget, g->thought, last))
        return g->control.think_end;
    const ds4_sampling how = { .temperature = state == STREAM_IN_MARKUP ? 0 : g->temperature,
                               .top_p = g->top_p,
                               .min_p = g->min_p,
                               .top_k = g->top_k,
                               .rng = &g->rng,
                               .mask = g->run ? grammar_mask(g->run) : NULL,
                               .bias = g->n_bias ? g->bias : NULL,
                               .n_bias = g->n_bias };
    return ds4_sample(s, &how);
}

/* None of these can occur within an answer: it is over, whatever was meant. */
static bool ends_answer(const Generation *g, int32_t token)
{
    const Controls *c = &g->control;
    if (token == c->eos)
        return true;
    return !g->job->turn.raw && (token == c->user || token == c->assistant || token == c->bos);
}

/* ---- loops ------------------------------------------------------------------------------ */

static bool in_loop(Generation *g, int32_t token)
{
    enum StreamState state = stream_state(g->stream);
    if (!g->env->loop_guard || state == STREAM_IN_MARKUP)
        return false;
    int period =
        repeat_token(&g->repeat, token, state == STREAM_IN_VALUE ? REPEAT_VALUE : REPEAT_PROSE);
    if (period)
        snprintf(g->loop, sizeof g->loop, "the same %d tokens again and again", period);
    return period > 0;
}

/* The call that has just been completed. */
static bool same_call_again(Generation *g, int calls_before)
{
    if (!g->env->loop_guard || stream_calls(g->stream) == calls_before || !g->told.n_calls)
        return false;
    const CollectedCall *call = &g->told.calls[g->told.n_calls - 1];
    if (!repeat_call(&g->calls, bytes_view(&call->name), bytes_view(&call->arguments)))
        return false;
    snprintf(g->loop, sizeof g->loop, "the same call of %.*s again and again",
             STR_ARG(bytes_view(&call->name)));
    return true;
}

/* An answer after many that all made one call and got one result: it is not
 * asked for again. */
static bool turns_loop(Generation *g)
{
    Str name = g->env->loop_guard ? repeat_turns(&g->job->turn) : (Str){ 0 };
    if (!name.n)
        return false;
    char text[320];
    snprintf(g->loop, sizeof g->loop, "the same call of %.*s in %d answers, with the same result",
             STR_ARG(name), REPEAT_TURNS);
    snprintf(text, sizeof text,
             "[Stopped: the last %d answers made the same call of %.*s and got the same result.]",
             REPEAT_TURNS, STR_ARG(name));
    sign_thought(g);
    tell_text(g, str_of(text));
    finish(g, FINISH_LOOP);
    return true;
}

/* ---- the end ------------------------------------------------------------------------------ */

static enum DecodePhase phase_of(enum StreamState state)
{
    switch (state) {
    case STREAM_IN_THINK: return DECODE_THINK;
    case STREAM_IN_MARKUP:
    case STREAM_IN_VALUE: return DECODE_TOOL;
    default: return DECODE_TEXT;
    }
}

static bool custom_arguments(const CollectedCall *call, Arena *a, Str *out)
{
    Bytes b = { 0 };
    tools_custom_arguments(bytes_view(&call->arguments), &b);
    char *p = b.failed ? NULL : arena_str(a, bytes_view(&b));
    *out = (Str){ p, p ? b.n : 0 };
    bytes_release(&b);
    return p != NULL;
}

static bool calls_told(const Generation *g, Arena *a, ChatCall *calls)
{
    for (size_t i = 0; i < g->told.n_calls; i++) {
        const CollectedCall *call = &g->told.calls[i];
        bool custom = call->tool && call->tool->kind == TOOL_CUSTOM;
        calls[i] = (ChatCall){ .id = str_of(call->id),
                               .name = call->tool ? call->tool->name : bytes_view(&call->name),
                               .arguments = bytes_view(&call->arguments) };
        if (custom && !custom_arguments(call, a, &calls[i].arguments))
            return false;
    }
    return true;
}

/* Where thoughts end without </think>, in a block of calls, their end cannot be
 * found in what was sampled. */
static bool has_seams(const Generation *g)
{
    bool closed = !g->job->thinking || (!g->told.text.n && !g->told.n_calls);
    for (size_t i = 0; i < g->sampled.n && !closed; i++)
        closed = g->sampled.id[i] == g->control.think_end;
    return closed;
}

/* An answer that the client will send back as it was shown. One that was cut by
 * a stop string or in a call will come back as something else. */
static void keep(Generation *g, enum Finish how)
{
    Arena a = { 0 };
    ChatCall *calls = arena_array(&a, g->told.n_calls, sizeof *calls);
    bool whole =
        how != FINISH_STOP_SEQUENCE && stream_repairs(g->stream).dropped == 0 && has_seams(g);
    if (whole && calls && !g->told.failed && calls_told(g, &a, calls)) {
        const Sampled s = { .handle = g->job->thinking ? g->handle : NULL,
                            .ids = g->sampled.id,
                            .n_ids = g->sampled.n,
                            .reasoning = bytes_view(&g->told.reasoning),
                            .content = bytes_view(&g->told.text),
                            .calls = calls,
                            .n_calls = g->told.n_calls };
        recall_keep(g->env->recall, &g->job->turn, &s);
    }
    arena_release(&a);
}

static void count_calls(const Generation *g)
{
    StreamRepairs r = stream_repairs(g->stream);
    for (int i = 0; i < stream_calls(g->stream); i++)
        metrics_tool_call(g->env->metrics, i < r.recovered ? CALL_RECOVERED : CALL_OK);
    for (int i = 0; i < r.dropped; i++)
        metrics_tool_call(g->env->metrics, CALL_DROPPED);
}

static void finish(Generation *g, enum Finish how)
{
    stream_finish(g->stream);
    sign_thought(g);
    Str stop = stream_stopped_by(g->stream);
    if (how == FINISH_STOP && stop.n)
        how = FINISH_STOP_SEQUENCE;
    else if (how == FINISH_STOP && stream_calls(g->stream) > 0)
        how = FINISH_TOOL_CALLS;
    if (g->failed || stream_failed(g->stream)) {
        fail_with(g, no_memory);
        return;
    }
    keep(g, how);
    count_calls(g);
    g->over = true;
    g->end = (Event){ .kind = EV_FINISH,
                      .finish = how,
                      .stop_sequence = stop,
                      .handle = g->job->thinking ? g->handle : NULL,
                      .usage = generation_usage(g) };
    job_tell(g->job, &g->end);
}

static void fail_with(Generation *g, const char *what)
{
    g->over = true;
    api_fail(&g->error, 500, "server_error", NULL, "%s", what);
    job_fail(g->job, &g->error);
}

/* ---- the next token -------------------------------------------------------------------------- */

static void set_stage(Generation *g)
{
    static const int stages[] = {
        [DECODE_THINK] = STAGE_THINKING, [DECODE_TEXT] = STAGE_TEXT, [DECODE_TOOL] = STAGE_TOOL
    };
    atomic_store(&g->job->stage, stages[phase_of(stream_state(g->stream))]);
    atomic_store(&g->job->generated, (int)g->sampled.n);
}

/* Account for a token and let the stream have it; false: it ended the answer. */
static bool take(Generation *g, int32_t token)
{
    enum StreamState before = stream_state(g->stream);
    int calls = stream_calls(g->stream);
    tokens_put(&g->sampled, token);
    g->failed |= g->sampled.failed || !add_penalty(g, token);
    g->thought += before == STREAM_IN_THINK;
    metrics_decoded(g->env->metrics, phase_of(before), 1);
    if (g->run && !grammar_token(g->run, token)) {
        fail_with(g, grammar_failed(g->run)
                         ? no_memory
                         : "a token was sampled that the grammar does not allow");
        return false;
    }
    bool more = stream_token(g->stream, token);
    if (before == STREAM_IN_THINK && stream_state(g->stream) != STREAM_IN_THINK)
        sign_thought(g);
    set_stage(g);
    if (!more || g->failed)
        finish(g, FINISH_STOP);
    else if (in_loop(g, token) || same_call_again(g, calls))
        finish(g, FINISH_LOOP);
    else if ((int)g->sampled.n >= g->most)
        finish(g, g->most_is_context ? FINISH_CONTEXT : FINISH_LENGTH);
    return !g->over;
}

bool generation_next(Generation *g, ds4_session *s, int32_t *token)
{
    if (!g->sampled.n && turns_loop(g))
        return false;
    *token = choose(g, s);
    if (g->run && grammar_failed(g->run)) {
        fail_with(g, no_memory);
        return false;
    }
    if (*token < 0) {
        fail_with(g, "nothing can follow what was sampled");
        return false;
    }
    if (ends_answer(g, *token)) {
        finish(g, FINISH_STOP);
        return false;
    }
    if (g->job->turn.logprobs && stream_state(g->stream) == STREAM_IN_TEXT)
        note_logprobs(g, s, *token);
    return take(g, *token);
}
