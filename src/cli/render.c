/* render.c - ds4 render: a request to the exact prompt. */
#include "request.h"
#include "tokens.h"

static const char about[] =
    "Prints the prompt that a request on stdin becomes: the exact text, with no newline added, or\n"
    "its token ids. Control tokens appear only where the renderer puts them: what a message "
    "spells\n"
    "like one stays text, which only the ids show.";

static bool print_prompt(const ds4_vocab *v, const ChatPrompt *p, bool ids, ds4_err *err)
{
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
static bool render(ModelOptions *m, Str json, bool native, const char *release, bool ids,
                   ds4_err *err)
{
    Request r = { 0 };
    ChatPrompt p = { 0 };
    bool preview = true;
    ds4_vocab *v = tokens_open_vocab(m, &preview, err);
    if (release)
        preview = strcmp(release, "preview") == 0;
    bool ok = v && (native ? request_native : request_chat)(&r, json, preview, err) &&
              chat_render(&p, v, r.m, r.n, &r.opt, err) && print_prompt(v, &p, ids, err);
    chat_prompt_release(&p);
    vocab_free(v);
    request_release(&r);
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
        { OPT_STR, "--api", "chat|native", &api,
          "the request's form: OpenAI chat (default), or the official encoder's arguments", 0, 0 },
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
    bool ok = cli_read_text(&json, "-", &err) &&
              render(&m, bytes_view(&json), strcmp(api, "native") == 0, release, ids, &err);
    bytes_release(&json);
    return ok ? 0 : cli_fail(&err);
}
