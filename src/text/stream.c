/* stream.c - from tokens to events.
 *
 * Three stages, a byte at a time, so that it cannot matter how bytes were cut:
 * to valid UTF-8, in which the three control tokens that mean something are
 * bytes of their own; to prose and blocks of calls; and the text of the answer
 * past its stop strings. What might be a block is looked at first. If it is
 * none, its first character is prose and the rest is read again. */
#include "stream.h"
#include "../base/utf8.h"
#include "stream_block.h"
#include <stdlib.h>

enum { DEFAULT_MAX = 64 << 20, MAX_PLAIN = 64 << 10, SHORT = 256 };

/* A stop string, and the length of its longest beginning that ends the text. */
typedef struct {
    Str text;
    size_t *back; /* of each beginning: the longest shorter one that ends it */
    size_t at;
} Stop;

struct Stream {
    const ds4_vocab *vocab;
    StreamTools tools;
    StreamFn fn;
    void *user;
    Arena arena;
    Stop *stop;
    size_t n_stop, left; /* left: bytes that the answer may still have */

    Bytes spelled;   /* may be a control token's spelling */
    Bytes character; /* one that is not complete */

    bool thinking, over, failed;
    size_t breaks;       /* line breaks held back, at most two */
    Bytes opening;       /* "<", and what of a plain block's tag follows */
    bool no_plain;       /* blocks of plain tags are not looked for */
    bool in_block, late; /* late: it must be whole before it is told */
    Bytes raw;           /* the block, while it is looked at */
    Block block;

    Bytes text; /* held back: it may begin a stop string */
    Str stopped_by;

    Bytes out; /* of one kind and call */
    enum StreamKind kind;
    int begun, calls;
    StreamRepairs repairs;
};

static bool init_stops(Stream *s, const StreamOptions *opt);
static void finish(Stream *s);
static void end_answer(Stream *s);

Stream *stream_new(const ds4_vocab *v, const StreamOptions *opt, StreamFn fn, void *user)
{
    Stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (Stream){ .vocab = v,
                   .tools = opt->tools,
                   .fn = fn,
                   .user = user,
                   .thinking = opt->thinking,
                   .left = opt->max_bytes ? opt->max_bytes : DEFAULT_MAX };
    s->block.tools = &s->tools;
    s->block.user = s;
    if (!init_stops(s, opt)) {
        stream_free(s);
        return NULL;
    }
    return s;
}

void stream_free(Stream *s)
{
    if (!s)
        return;
    Bytes *const all[] = { &s->spelled, &s->character, &s->opening, &s->raw, &s->text, &s->out };
    for (size_t i = 0; i < COUNT(all); i++)
        bytes_release(all[i]);
    block_release(&s->block);
    arena_release(&s->arena);
    free(s);
}

enum StreamState stream_state(const Stream *s)
{
    if (s->over)
        return STREAM_DONE;
    if (s->in_block)
        return block_in_value(&s->block) ? STREAM_IN_VALUE : STREAM_IN_MARKUP;
    return s->thinking ? STREAM_IN_THINK : STREAM_IN_TEXT;
}

int stream_calls(const Stream *s) { return s->calls; }

Str stream_stopped_by(const Stream *s) { return s->stopped_by; }

bool stream_failed(const Stream *s) { return s->failed; }

StreamRepairs stream_repairs(const Stream *s) { return s->repairs; }

/* ---- events ------------------------------------------------------------------------ */

static void flush(Stream *s)
{
    if (s->out.n) {
        const StreamEvent e = { s->kind, s->begun - 1, bytes_view(&s->out) };
        s->fn(s->user, &e);
    }
    bytes_clear(&s->out);
}

static void put(Stream *s, enum StreamKind kind, Str bytes)
{
    if (s->kind != kind)
        flush(s);
    s->kind = kind;
    bytes_put(&s->out, bytes.p, bytes.n);
}

static void emit_call(void *user, enum StreamKind kind, Str bytes)
{
    Stream *s = user;
    if (kind == STREAM_CALL_ARGS) {
        put(s, kind, bytes);
        return;
    }
    flush(s);
    s->begun += kind == STREAM_CALL_BEGIN;
    s->calls += kind == STREAM_CALL_END;
    const StreamEvent e = { kind, s->begun - 1, bytes };
    s->fn(s->user, &e);
}

/* ---- stop strings ------------------------------------------------------------------- */

static bool init_stops(Stream *s, const StreamOptions *opt)
{
    s->stop = arena_array(&s->arena, opt->n_stop, sizeof *s->stop);
    for (size_t i = 0; i < opt->n_stop && s->stop; i++) {
        Str text = opt->stop[i];
        if (!text.n || utf8_valid(text) != text.n)
            continue; /* never in an answer */
        Stop *p = &s->stop[s->n_stop++];
        *p = (Stop){ { arena_str(&s->arena, text), text.n },
                     arena_array(&s->arena, text.n, sizeof *p->back),
                     0 };
        if (!p->text.p || !p->back)
            return false;
        for (size_t n = 1, k = 0; n < text.n; n++) {
            while (k && text.p[n] != text.p[k])
                k = p->back[k - 1];
            k += text.p[n] == text.p[k];
            p->back[n] = k;
        }
    }
    return s->stop != NULL;
}

static void step_stop(Stop *p, char c)
{
    while (p->at && (p->at == p->text.n || p->text.p[p->at] != c))
        p->at = p->back[p->at - 1];
    p->at += p->text.p[p->at] == c;
}

/* The stop string that is complete first ends the text; of several, the
 * longest. What begins none is let go. */
static void put_text(Stream *s, Str bytes)
{
    if (s->n_stop == 0)
        put(s, STREAM_TEXT, bytes);
    for (size_t i = 0; i < bytes.n && s->n_stop && !s->over; i++) {
        const Stop *hit = NULL;
        size_t hold = 0;
        bytes_byte(&s->text, (unsigned char)bytes.p[i]);
        for (size_t k = 0; k < s->n_stop; k++) {
            Stop *p = &s->stop[k];
            step_stop(p, bytes.p[i]);
            hold = MAX(hold, p->at);
            if (p->at == p->text.n && (!hit || p->text.n > hit->text.n))
                hit = p;
        }
        size_t gone = s->text.n - (hit ? hit->text.n : hold);
        if (s->text.failed)
            return;
        put(s, STREAM_TEXT, (Str){ s->text.p, gone });
        memmove(s->text.p, s->text.p + gone, s->text.n - gone);
        s->text.n -= gone;
        if (hit) {
            s->stopped_by = hit->text;
            bytes_clear(&s->text);
            end_answer(s);
        }
    }
}

static void release_text(Stream *s)
{
    if (s->text.n)
        put(s, STREAM_TEXT, bytes_view(&s->text));
    bytes_clear(&s->text);
    for (size_t i = 0; i < s->n_stop; i++)
        s->stop[i].at = 0;
}

/* ---- prose and blocks --------------------------------------------------------------- */

static void accept(Stream *s, unsigned char c);

static void put_prose(Stream *s, Str bytes)
{
    if (s->thinking)
        put(s, STREAM_REASONING, bytes);
    else
        put_text(s, bytes);
}

static void put_breaks(Stream *s)
{
    put_prose(s, (Str){ "\n\n", s->breaks });
    s->breaks = 0;
}

/* No more that counts will come. */
static void end_answer(Stream *s)
{
    s->over = true;
    s->breaks = 0;
    bytes_clear(&s->opening);
    bytes_clear(&s->raw);
}

static void begin_block(Stream *s, bool plain)
{
    s->in_block = true;
    s->late = plain || s->thinking;
    bytes_clear(&s->raw);
    bytes_put(&s->raw, s->opening.p, s->opening.n);
    bytes_clear(&s->opening);
    block_start(&s->block, plain, s->late, NULL);
}

static void end_block(Stream *s)
{
    s->repairs.recovered += s->block.recovered;
    s->repairs.dropped += s->block.dropped;
    s->in_block = false;
    end_answer(s);
}

static void tell_block(Stream *s, unsigned char c)
{
    if (block_byte(&s->block, c) == BLOCK_END)
        end_block(s);
}

/* It is one: the breaks before it go, and it is read again to be told. */
static void accept_block(Stream *s)
{
    Bytes raw = s->raw;
    size_t from = s->block.plain ? (size_t)((char *)memchr(raw.p, '>', raw.n) - raw.p) + 1 : 2;
    s->raw = (Bytes){ 0 };
    s->repairs.recovered += s->late;
    s->thinking = false;
    s->breaks = 0;
    release_text(s);
    block_start(&s->block, s->block.plain, s->late, emit_call);
    for (size_t i = from; i < raw.n && !s->over; i++)
        tell_block(s, (unsigned char)raw.p[i]);
    bytes_release(&raw);
}

/* It is none: it starts with "<" as prose, and what follows may start one; but
 * not a plain one if that would mean to read much again and again. */
static void refuse_block(Stream *s)
{
    Bytes raw = s->raw;
    bool outer = s->no_plain;
    s->no_plain = outer || raw.n > SHORT;
    s->raw = (Bytes){ 0 };
    s->in_block = false;
    put_breaks(s);
    put_prose(s, STR("<"));
    for (size_t i = 1; i < raw.n && !s->over; i++)
        accept(s, (unsigned char)raw.p[i]);
    s->no_plain = outer;
    bytes_release(&raw);
}

static void look_at_block(Stream *s, unsigned char c)
{
    bytes_byte(&s->raw, c);
    if (s->raw.failed)
        return;
    enum BlockStep step = block_byte(&s->block, c);
    bool empty = s->block.calls == 0;
    if (step == BLOCK_END && !s->late && !s->block.odd && empty)
        end_block(s); /* a block without calls */
    else if (step == BLOCK_END && !empty && !s->block.unknown)
        accept_block(s);
    else if (step == BLOCK_SURE && !s->late)
        accept_block(s);
    else if (step == BLOCK_BAD || step == BLOCK_END || (s->block.plain && s->raw.n > MAX_PLAIN))
        refuse_block(s);
}

/* 0: c is not how a block may go on after opening; 1: it may; 2: it has begun. */
static int goes_on(const Stream *s, unsigned char c)
{
    static const char *const plain[] = { "<tool_calls>", "<DSML｜tool_calls>" };
    size_t have = s->opening.n;
    if (have == 1 && c == MARK_DSML)
        return 2;
    for (size_t i = 0; i < COUNT(plain) && !s->thinking && !s->no_plain; i++)
        if (strlen(plain[i]) > have && memcmp(plain[i], s->opening.p, have) == 0 &&
            (unsigned char)plain[i][have] == c)
            return plain[i][have + 1] ? 1 : 2;
    return 0;
}

/* Text that is held back, now that it is no part of a block. */
static void release_prose(Stream *s)
{
    put_breaks(s);
    if (s->opening.n)
        put_prose(s, bytes_view(&s->opening));
    bytes_clear(&s->opening);
}

static void accept_prose(Stream *s, unsigned char c)
{
    bool markup = s->tools.declared != NULL;
    if (s->opening.n) {
        int next = goes_on(s, c);
        if (next) {
            bytes_byte(&s->opening, c);
            if (next == 2)
                begin_block(s, c != MARK_DSML);
            return;
        }
        release_prose(s);
    }
    if (markup && c == '\n') {
        if (s->breaks == 2)
            put_prose(s, STR("\n"));
        else
            s->breaks++;
    } else if (markup && c == '<') {
        bytes_byte(&s->opening, c);
    } else {
        put_breaks(s);
        if (c == MARK_THINK_END && s->thinking)
            s->thinking = false;
        else
            put_prose(s, mark_text(&c));
    }
}

static void accept(Stream *s, unsigned char c)
{
    if (s->over)
        return;
    if (!s->in_block)
        accept_prose(s, c);
    else if (s->block.emit)
        tell_block(s, c);
    else
        look_at_block(s, c);
}

/* Its first call was cut off: none is told. */
static void drop_block(Stream *s)
{
    s->block.dropped++;
    release_text(s);
    end_block(s);
}

/* Nothing more comes. A block that was only looked at is told if only its end is
 * missing, and dropped if it was cut off before its first call was certain. Where
 * something is wrong with it, in reasoning, and in the plain form it is prose. */
static void finish_prose(Stream *s)
{
    bool looking = s->in_block && !s->block.emit && !s->block.plain;
    if (looking && s->block.calls > 0 && !s->block.unknown && block_between_calls(&s->block))
        accept_block(s);
    if (s->in_block && !s->late && !s->block.emit && block_unharmed(&s->block)) {
        drop_block(s);
    } else if (s->in_block && s->block.emit) {
        s->repairs.dropped += !block_between_calls(&s->block);
        end_block(s);
    } else if (s->in_block) {
        put_breaks(s);
        for (size_t i = 0; i < s->raw.n && !s->over; i++) {
            unsigned char c = (unsigned char)s->raw.p[i];
            put_prose(s, mark_text(&c));
        }
        s->in_block = false;
    }
    if (!s->over)
        release_prose(s);
    if (!s->over)
        release_text(s);
    end_answer(s);
}

/* ---- bytes to characters ------------------------------------------------------------- */

/* May more bytes make a character of this? */
static bool is_beginning(Str s)
{
    static const char *const fills[] = { "\x80\x80\x80", "\x90\x80\x80", "\xa0\x80\x80",
                                         "\x8f\x80\x80" };
    char c[7];
    memcpy(c, s.p, MIN(s.n, 3));
    for (size_t i = 0; i < COUNT(fills) && s.n < 4; i++) {
        memcpy(c + s.n, fills[i], 3);
        if (utf8_char(c, s.n + 3) > (int)s.n)
            return true;
    }
    return false;
}

static void accept_character(Stream *s, Str c)
{
    for (size_t i = 0; i < c.n; i++)
        accept(s, (unsigned char)c.p[i]);
}

/* Take characters off the front; the rest stays while it may become one. last: it
 * cannot any more. */
static void sort_out(Stream *s, bool last)
{
    static const Str unknown = { "\xEF\xBF\xBD", 3 };
    size_t from = 0;
    while (from < s->character.n) {
        Str rest = { s->character.p + from, s->character.n - from };
        int n = utf8_char(rest.p, rest.n);
        if (n == 0 && !last && is_beginning(rest))
            break;
        accept_character(s, n ? (Str){ rest.p, (size_t)n } : unknown);
        from += n ? (size_t)n : 1;
    }
    if (from) {
        memmove(s->character.p, s->character.p + from, s->character.n - from);
        s->character.n -= from;
    }
}

static void accept_bytes(Stream *s, Str bytes)
{
    for (size_t i = 0; i < bytes.n && !s->over; i++) {
        if (s->left == 0) {
            finish(s);
            return;
        }
        s->left--;
        bytes_byte(&s->character, (unsigned char)bytes.p[i]);
        sort_out(s, false);
    }
}

static void accept_mark(Stream *s, unsigned char mark)
{
    sort_out(s, true);
    accept(s, mark);
}

/* ---- tokens, and text that spells them ------------------------------------------------ */

/* After each piece: tell what there is, and end where memory did. */
static bool settle(Stream *s)
{
    const Bytes *const all[] = {
        &s->spelled,     &s->character,  &s->opening,   &s->raw,
        &s->text,        &s->out,        &s->block.tag, &s->block.held,
        &s->block.value, &s->block.name, &s->block.key, &s->block.wrapped
    };
    for (size_t i = 0; i < COUNT(all); i++)
        s->failed |= all[i]->failed;
    s->failed |= s->block.failed;
    s->over |= s->failed;
    if (!s->failed)
        flush(s);
    return !s->over;
}

/* A character that the answer ends within is no damage, but not yet there: as
 * U+FFFD clients would send it back, and the prompt would be another one. */
static void finish(Stream *s)
{
    bytes_clear(&s->character);
    if (!s->over)
        finish_prose(s);
}

bool stream_token(Stream *s, int32_t id)
{
    const Controls *c = vocab_controls(s->vocab);
    if (s->over || id < 0)
        return false;
    if (id == c->eos || id == c->bos || id == c->user || id == c->assistant)
        finish(s);
    else if (id == c->dsml)
        accept_mark(s, MARK_DSML);
    else if (id == c->think)
        accept_mark(s, MARK_THINK);
    else if (id == c->think_end)
        accept_mark(s, MARK_THINK_END);
    else
        accept_bytes(s, vocab_bytes(s->vocab, id));
    return settle(s);
}

static const struct {
    const char *text;
    unsigned char mark; /* 0: the end */
} spellings[] = {
    { "｜DSML｜", MARK_DSML },
    { "<think>", MARK_THINK },
    { "</think>", MARK_THINK_END },
    { "<｜end▁of▁sentence｜>", 0 },
};

/* What is held back goes on where it may still be a spelling. */
static void settle_spelling(Stream *s)
{
    size_t from = 0;
    while (from < s->spelled.n) {
        Str rest = { s->spelled.p + from, s->spelled.n - from };
        bool may = false;
        for (size_t i = 0; i < COUNT(spellings) && !may; i++) {
            size_t n = strlen(spellings[i].text);
            may = rest.n <= n && memcmp(spellings[i].text, rest.p, rest.n) == 0;
            if (!may || rest.n < n)
                continue;
            if (spellings[i].mark)
                accept_mark(s, spellings[i].mark);
            else
                finish(s);
            bytes_clear(&s->spelled);
            return;
        }
        if (may)
            break;
        accept_bytes(s, (Str){ rest.p, 1 });
        from++;
    }
    if (from) {
        memmove(s->spelled.p, s->spelled.p + from, s->spelled.n - from);
        s->spelled.n -= from;
    }
}

bool stream_text(Stream *s, Str bytes)
{
    for (size_t i = 0; i < bytes.n && !s->over; i++) {
        bytes_byte(&s->spelled, (unsigned char)bytes.p[i]);
        settle_spelling(s);
    }
    return settle(s);
}

void stream_finish(Stream *s)
{
    accept_bytes(s, bytes_view(&s->spelled));
    bytes_clear(&s->spelled);
    if (!s->over)
        finish(s);
    settle(s);
}
