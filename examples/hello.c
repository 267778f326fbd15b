/* hello.c - ask a model one question.
 *
 *     cc -Iinclude -o hello examples/hello.c build/libds4.a \
 *         $(pkg-config --libs libpcre2-8 libxxhash json-c) -lm -pthread
 *     ./hello models/ds4-tiny.gguf "What is 2 + 3?" */
#include <ds4.h>
#include <stdio.h>
#include <string.h>

static const char end[] = "<｜end▁of▁sentence｜>";
#define PROMPT "<｜begin▁of▁sentence｜><｜User｜>%s<｜Assistant｜></think>"

/* Print the answer to a prompt, a token at a time. */
static bool answer(ds4_session *s, const ds4_vocab *v, const char *prompt, ds4_err *err)
{
    int32_t ids[1024], stop = -1;
    size_t n = ds4_encode(v, prompt, strlen(prompt), true, ids, 1024), len;

    ds4_encode(v, end, strlen(end), true, &stop, 1);
    bool ok = n <= 1024 && ds4_session_feed(s, ids, (int)n, err);
    for (int i = 0; ok && i < 200; i++) {
        int32_t next = ds4_sample(s, &(ds4_sampling){ .temperature = 0 });
        if (next == stop)
            break;
        const char *bytes = ds4_token_bytes(v, next, &len);
        fwrite(bytes, 1, len, stdout);
        ok = ds4_session_feed(s, &next, 1, err);
    }
    putchar('\n');
    return ok;
}

int main(int argc, char **argv)
{
    const char *model = argc > 1 ? argv[1] : "models/ds4-tiny.gguf";
    char prompt[1000];
    ds4_err err = { DS4_EINVAL, "the prompt is too long" };

    snprintf(prompt, sizeof prompt, PROMPT, argc > 2 ? argv[2] : "What is 2 + 3?");
    ds4_engine *engine = ds4_engine_open(&(ds4_options){ .model = model }, &err);
    ds4_session *session = engine ? ds4_session_open(engine, &err) : NULL;
    bool ok = session && answer(session, ds4_engine_vocab(engine), prompt, &err);
    if (!ok)
        fprintf(stderr, "%s\n", err.msg);
    ds4_engine_close(engine);
    return !ok;
}
