/* render.c - ds4 render: a request to the exact prompt, as the server makes it. */
#include "prompt.h"
#include "tokens.h"

static const char about[] =
    "Prints the prompt that a request on stdin becomes: the exact text, with no newline added, or\n"
    "its token ids. Control tokens appear only where the renderer puts them: what a message "
    "spells\n"
    "like one stays text, which only the ids show.";

static bool print_prompt(void *user, const ds4_vocab *v, const ChatPrompt *p, ds4_err *err)
{
    bool ids = *(const bool *)user;
    Tokens t = { 0 };
    Bytes text = { 0 };
    bool ok;
    if (ids)
        ok = chat_tokens(p, v, &t, err) && tokens_print(&t, err);
    else
        ok = (chat_text(p, v, &text) || fail(err, DS4_ENOMEM, "no memory for the prompt")) &&
             cli_out(text.p, text.n, err);
    tokens_release(&t);
    bytes_release(&text);
    return ok;
}

/* release NULL: the model's own. */
static bool render(ModelOptions *m, Str json, const char *api, const char *release, bool ids,
                   ds4_err *err)
{
    bool preview = true;
    ds4_vocab *v = tokens_open_vocab(m, &preview, err);
    if (release)
        preview = strcmp(release, "preview") == 0;
    bool ok = v && prompt_of(api, json, v, preview, print_prompt, &ids, err);
    vocab_free(v);
    return ok;
}

int cmd_render(int argc, char **argv)
{
    ModelOptions m = { 0 };
    const char *api = "chat", *release = NULL;
    bool ids = false;
    const Option options[] = {
        { OPT_STR, "-m, --model", "FILE", &m.engine.model,
          "the GGUF; default: ./ds4flash.gguf, else the bundled tiny model", 0, 0 },
        { OPT_STR, "--api", "chat|messages|responses|native", &api,
          "the request's form: OpenAI chat (default), Anthropic, OpenAI Responses, or the official "
          "encoder's arguments",
          0, 0 },
        { OPT_STR, "--release", "preview|0731", &release,
          "whose texts for the thinking effort; default: the model's, by its name", 0, 0 },
        { OPT_FLAG, "--ids", NULL, &ids, "token ids, as a JSON array", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 render [options] < REQUEST",
                          .about = about,
                          .tables = { options } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;

    ds4_err err = { 0 };
    Bytes json = { 0 };
    bool ok =
        cli_read_text(&json, "-", &err) && render(&m, bytes_view(&json), api, release, ids, &err);
    bytes_release(&json);
    return ok ? 0 : cli_fail(&err);
}
