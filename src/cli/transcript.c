/* transcript.c - messages: u32 count, then for each u32 role, u64 length and
 * bytes of its content, the same of its reasoning. */
#include "transcript.h"
#include <stdlib.h>

static bool copy(Str s, Str *out)
{
    char *p = malloc(s.n ? s.n : 1);
    if (!p)
        return false;
    if (s.n)
        memcpy(p, s.p, s.n);
    *out = (Str){ p, s.n };
    return true;
}

static void message_release(ChatMessage *m)
{
    free((void *)(uintptr_t)m->content.p);
    free((void *)(uintptr_t)m->reasoning.p);
    *m = (ChatMessage){ 0 };
}

static bool make_room(Transcript *t)
{
    if (t->n < t->cap)
        return true;
    size_t cap = t->cap ? 2 * t->cap : 16;
    ChatMessage *m = realloc(t->m, cap * sizeof *m);
    if (!m)
        return false;
    t->m = m;
    t->cap = cap;
    return true;
}

bool transcript_add(Transcript *t, int role, Str content, Str reasoning, ds4_err *err)
{
    ChatMessage m = { .role = role };
    if (!make_room(t) || !copy(content, &m.content) || !copy(reasoning, &m.reasoning)) {
        message_release(&m);
        return fail(err, DS4_ENOMEM, "no memory for a message of %zu bytes", content.n);
    }
    t->m[t->n++] = m;
    return true;
}

void transcript_drop_last(Transcript *t)
{
    if (t->n)
        message_release(&t->m[--t->n]);
}

bool transcript_system(Transcript *t, Str text, ds4_err *err)
{
    if (t->n && t->m[0].role == CHAT_SYSTEM) {
        message_release(&t->m[0]);
        memmove(t->m, t->m + 1, --t->n * sizeof *t->m);
    }
    if (!text.n)
        return true;
    if (!transcript_add(t, CHAT_SYSTEM, text, (Str){ 0 }, err))
        return false;
    ChatMessage system = t->m[t->n - 1];
    memmove(t->m + 1, t->m, (t->n - 1) * sizeof *t->m);
    t->m[0] = system;
    return true;
}

int transcript_last_role(const Transcript *t) { return t->n ? t->m[t->n - 1].role : -1; }

void transcript_release(Transcript *t)
{
    while (t->n)
        transcript_drop_last(t);
    free(t->m);
    *t = (Transcript){ 0 };
}

void transcript_write(const Transcript *t, Bytes *out)
{
    bytes_u32(out, (uint32_t)t->n);
    for (size_t i = 0; i < t->n; i++) {
        const ChatMessage *m = &t->m[i];
        bytes_u32(out, (uint32_t)m->role);
        bytes_u64(out, m->content.n);
        bytes_put(out, m->content.p, m->content.n);
        bytes_u64(out, m->reasoning.n);
        bytes_put(out, m->reasoning.p, m->reasoning.n);
    }
}

/* ---- reading ------------------------------------------------------------------------ */

static bool take(Str *in, size_t n, Str *out)
{
    if (n > in->n)
        return false;
    *out = (Str){ in->p, n };
    *in = (Str){ in->p + n, in->n - n };
    return true;
}

static bool take_number(Str *in, size_t bytes, uint64_t *v)
{
    Str s = { 0 };
    if (!take(in, bytes, &s))
        return false;
    *v = 0;
    for (size_t i = bytes; i-- > 0;)
        *v = *v << 8 | (unsigned char)s.p[i];
    return true;
}

static bool take_text(Str *in, Str *out)
{
    uint64_t n;
    return take_number(in, 8, &n) && n <= in->n && take(in, (size_t)n, out);
}

bool transcript_parse(Transcript *t, Str bytes, ds4_err *err)
{
    uint64_t n = 0, role = 0;
    Str content = { 0 }, reasoning = { 0 };
    *t = (Transcript){ 0 };
    bool ok = take_number(&bytes, 4, &n);
    for (uint64_t i = 0; ok && i < n; i++) {
        ok = take_number(&bytes, 4, &role) && role <= CHAT_ASSISTANT &&
             take_text(&bytes, &content) && take_text(&bytes, &reasoning);
        if (ok && !transcript_add(t, (int)role, content, reasoning, err)) {
            transcript_release(t);
            return false;
        }
    }
    if (ok && bytes.n == 0)
        return true;
    transcript_release(t);
    return fail(err, DS4_EFORMAT, "the saved messages are damaged");
}
