/* ask_recall.c - one fact among many like it in a long document, and where it stands.
 *
 * Every few sentences of the document tell another room's number, so that the fact
 * is found by its name and not by its look. */
#include "questions_parts.h"
#include <stdio.h>

static const char *const rooms[] = {
    "archive", "bakery",  "chapel", "dairy",    "foundry", "gallery", "hangar",  "infirmary",
    "kennel",  "laundry", "museum", "nursery",  "orchard", "pantry",  "quarry",  "refinery",
    "stable",  "theater", "vault",  "workshop", "cellar",  "attic",   "library", "greenhouse",
};
static const char *const colors[] = { "red",   "blue",  "green", "white",
                                      "black", "brown", "gray",  "pink" };
static const char *const subjects[] = { "The farmer",   "A traveler",  "The old captain",
                                        "The teacher",  "My neighbor", "A young painter",
                                        "The gardener", "The miller" };
static const char *const verbs[] = { "walked to", "looked at", "remembered",  "described",
                                     "left",      "drew",      "asked about", "dreamed of" };
static const char *const objects[] = { "the river",   "the market", "the mountain", "the harbor",
                                       "the village", "the garden", "the bridge",   "the forest" };
static const char *const times[] = { "in the morning", "after lunch",   "before the storm",
                                     "at night",       "on a cold day", "in early spring",
                                     "without a word", "once again" };

const char recall_fact[] = "The number of the golden %s is %d.";

#define PICK(rng, list) ((list)[rng_next(rng) % COUNT(list)])

static void put_filler(uint64_t *rng, Bytes *out)
{
    const char *subject = PICK(rng, subjects), *verb = PICK(rng, verbs);
    const char *object = PICK(rng, objects), *time = PICK(rng, times);
    bytes_printf(out, "%s %s %s %s. ", subject, verb, object, time);
}

/* The number of a room that is not the one asked for: that has a color of its own. */
static void put_other_fact(uint64_t *rng, Bytes *out)
{
    const char *color = PICK(rng, colors), *room = PICK(rng, rooms);
    bytes_printf(out, "The number of the %s %s is %d. ", color, room,
                 10000 + (int)(rng_next(rng) % 90000));
}

static void put_sentence(uint64_t *rng, Bytes *out)
{
    if (rng_next(rng) % 8)
        put_filler(rng, out);
    else
        put_other_fact(rng, out);
}

/* Sentences for about so many tokens; a sentence alone has some more than within a text. False: no
 * memory. */
static bool put_sentences(uint64_t *rng, int64_t tokens, TokensOf tokens_of, void *user, Bytes *out)
{
    while (!out->failed) {
        size_t from = out->n;
        put_sentence(rng, out);
        size_t n = tokens_of(user, (Str){ out->p + from, out->n - from });
        if (out->failed || n == SIZE_MAX)
            return false;
        tokens -= (int64_t)n;
        if (tokens < 0) {
            out->n = from; /* rather one less than one too many */
            return true;
        }
    }
    return false;
}

static bool put_document(uint64_t *rng, int64_t tokens, TokensOf tokens_of, void *user, Bytes *out)
{
    size_t begin = out->n, before;
    int64_t left = tokens;
    do {
        before = out->n;
        if (!put_sentences(rng, left, tokens_of, user, out))
            return false;
        size_t n = tokens_of(user, (Str){ out->p + begin, out->n - begin });
        if (n == SIZE_MAX)
            return false;
        left = tokens - (int64_t)n;
    } while (out->n > before);
    return true;
}

static bool put_recall(const ExamQuestion *q, TokensOf tokens_of, void *user, Bytes *out)
{
    uint64_t rng = q->seed;
    size_t taken = tokens_of(user, q->fact) + tokens_of(user, q->prompt);
    int64_t room = (int64_t)q->tokens - (int64_t)taken - 16, before = room * q->depth / 100;
    if (!put_document(&rng, before, tokens_of, user, out))
        return false;
    bytes_put(out, q->fact.p, q->fact.n);
    bytes_byte(out, ' ');
    if (!put_document(&rng, room - before, tokens_of, user, out))
        return false;
    bytes_str(out, "\n\n");
    bytes_put(out, q->prompt.p, q->prompt.n);
    return !out->failed;
}

bool question_text(const ExamQuestion *q, TokensOf tokens_of, void *user, Bytes *out, ds4_err *err)
{
    if (q->suite == SUITE_RECALL) {
        if (!put_recall(q, tokens_of, user, out))
            return fail(err, DS4_ENOMEM, "no memory for a document of %d tokens", q->tokens);
    } else {
        bytes_put(out, q->prompt.p, q->prompt.n);
    }
    return !out->failed || fail(err, DS4_ENOMEM, "no memory for a question");
}

static void ask(Maker *m, int tokens, int depth)
{
    char want[24], fact[128];
    const char *room = PICK(&m->rng, rooms);
    int number = maker_number(m, 10000, 99999);
    snprintf(want, sizeof want, "%d", number);
    snprintf(fact, sizeof fact, recall_fact, room, number);
    ExamQuestion *q = maker_add(m, SUITE_RECALL, GRADE_NUMBER, want,
                                "What is the number of the golden %s?", room);
    char *kept = arena_str(&m->q->arena, str_of(fact));
    m->failed |= !kept;
    q->fact = str_of(kept);
    q->tokens = tokens;
    q->depth = depth;
    q->seed = rng_next(&m->rng);
    snprintf(q->id, sizeof q->id, "recall-%dK-%d", tokens / 1024, depth);
}

void make_recall(Maker *m, int most_tokens)
{
    static const int depths[] = { 5, 25, 50, 75, 95 };
    for (int tokens = RECALL_LEAST; tokens <= MIN(most_tokens, (int)RECALL_MOST); tokens *= 2) {
        for (size_t i = 0; i < COUNT(depths); i++)
            ask(m, tokens, depths[i]);
    }
}
