/* side.c - which requests run beside a conversation. */
#include "side.h"
#include <strings.h>

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* As a word, or more than one of it: "entitled" and "subtitles" are others. */
static bool has_word(Str text, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.n; i++) {
        size_t end = i + n;
        if (strncasecmp(text.p + i, word, n) != 0 || (i > 0 && is_letter(text.p[i - 1])))
            continue;
        end += end < text.n && (text.p[end] == 's' || text.p[end] == 'S');
        if (end == text.n || !is_letter(text.p[end]))
            return true;
    }
    return false;
}

/* Clients say so in the system's first lines. */
static bool asks_for_title(const Turn *t)
{
    enum { BEGINNING = 512 };
    for (size_t i = 0; i < t->n_messages; i++) {
        const ChatMessage *m = &t->messages[i];
        Str begin = { m->content.p, MIN(m->content.n, (size_t)BEGINNING) };
        bool leads = m->role == CHAT_SYSTEM || m->role == CHAT_DEVELOPER;
        if (m->task == CHAT_TITLE || (leads && has_word(begin, "title")))
            return true;
    }
    return false;
}

static bool begins_anew(const Turn *t)
{
    for (size_t i = 0; i < t->n_messages; i++)
        if (t->messages[i].role == CHAT_ASSISTANT)
            return false;
    return !t->raw;
}

bool is_side_request(const Job *j, bool session_runs)
{
    const Turn *t = &j->turn;
    if (t->n_tools || j->prompt.n > SIDE_PROMPT || j->prompt_only || !begins_anew(t))
        return false;
    return session_runs || t->think == CHAT_THINK_LOW || asks_for_title(t);
}

bool is_surely_side(const Job *j, bool session_here)
{
    const Turn *t = &j->turn;
    bool helps = session_here && !t->session_is_shared && t->think == CHAT_THINK_LOW;
    return helps || asks_for_title(t);
}
