/* tokenizer.c - any bytes as text: encoded and decoded they are the same, with
 * control tokens recognised or not; and any bytes as JSON, which read again
 * are written as before. */
#include "../vocab_file.h"
#include "../../src/text/bpe.h"
#include "../../src/json/json.h"
#include <json-c/json.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ds4_vocab *vocab; /* made once: the target is called in a loop */

static void check_round_trip(Str text, bool special)
{
    Tokens t = { 0 };
    size_t at = 0;
    if (!bpe_encode(vocab, text, special, &t, NULL))
        abort();
    for (size_t i = 0; i < t.n; i++) {
        Str s = vocab_bytes(vocab, t.id[i]);
        if (s.n == 0 || s.n > text.n - at || memcmp(s.p, text.p + at, s.n) != 0 ||
            (!special && vocab_is_special(vocab, t.id[i])))
            abort();
        at += s.n;
    }
    if (at != text.n)
        abort();
    tokens_release(&t);
}

static void check_json(Str text)
{
    Bytes first = { 0 }, second = { 0 };
    struct json_object *o = json_read(text, NULL), *again;
    if (!o)
        return;
    json_write(&first, o);
    again = json_read(bytes_view(&first), NULL);
    /* Infinity is written as Python writes it, and is no JSON. */
    if (again) {
        json_write(&second, again);
        if (!str_eq(bytes_view(&first), bytes_view(&second)))
            abort();
    }
    json_object_put(o);
    json_object_put(again);
    bytes_release(&first);
    bytes_release(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Str text = { (const char *)data, size };
    if (!vocab && !(vocab = vf_small_vocab(NULL)))
        abort();
    check_round_trip(text, false);
    check_round_trip(text, true);
    check_json(text);
    return 0;
}
