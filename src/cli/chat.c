/* chat.c - ds4 chat: talk, and commands that begin with a slash.
 *
 * The messages are the truth. Each turn renders them anew and syncs the
 * session to the tokens, so the KV state of all that did not change is kept,
 * whatever /undo, /system or /think changed before. */
#include "answer.h"
#include "editor.h"
#include "saved.h"
#include "transcript.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char about[] =
    "Talks with the model. Ctrl-C stops an answer, Ctrl-D ends the chat, /help lists commands.\n"
    "A backslash at the end of a line goes on with the next.";

typedef struct {
    ModelOptions model;
    AnswerOptions how;
    ds4_engine *engine;
    ds4_session *session;
    Editor *editor;
    Transcript talk;
    int think; /* enum ChatThink */
    uint64_t rng;
    char speeds[160];  /* of the last answer */
    bool quit, broken; /* broken: the engine is lost */
} Chat;

typedef struct {
    const char *name, *arg, *help;
    bool (*run)(Chat *c, Str arg, ds4_err *err);
} ChatCommand;

static void note(const char *text) { fprintf(stderr, "%s\n", text); }

/* ---- turns -------------------------------------------------------------------------- */

/* Keep what was said; a question that got no word of an answer is dropped. */
static bool keep_answer(Chat *c, const Answer *a, ds4_err *err)
{
    if (a->content.n || a->reasoning.n)
        return transcript_add(&c->talk, CHAT_ASSISTANT, bytes_view(&a->content),
                              bytes_view(&a->reasoning), err);
    if (strcmp(a->finish, "interrupted") == 0) {
        note("(nothing was said; your message is dropped)");
        transcript_drop_last(&c->talk);
        return true;
    }
    return transcript_add(&c->talk, CHAT_ASSISTANT, (Str){ 0 }, (Str){ 0 }, err);
}

static void explain_finish(const Chat *c, const Answer *a)
{
    if (strcmp(a->finish, "length") == 0)
        fprintf(stderr, "(stopped at the limit of %d tokens)\n", c->how.tokens);
    else if (strcmp(a->finish, "context") == 0)
        fprintf(stderr, "(the context of %d tokens is full: /ctx N enlarges it)\n",
                ds4_engine_info(c->engine).context);
    else if (strcmp(a->finish, "interrupted") == 0)
        note("(interrupted)");
}

/* Answer the last message of the conversation. */
static bool answer_last(Chat *c, ds4_err *err)
{
    Printer printer;
    Answer a = { 0 };
    Tokens prompt = { 0 };
    printer_init(&printer);
    if (!answer_prompt(c->engine, c->talk.m, c->talk.n, c->think, &prompt, err)) {
        tokens_release(&prompt);
        return false;
    }
    Question q = { .engine = c->engine,
                   .session = c->session,
                   .prompt = &prompt,
                   .how = &c->how,
                   .rng = &c->rng,
                   .reasoning = c->think != CHAT_THINK_OFF,
                   .show = printer_show,
                   .user = &printer };
    bool ok = answer_make(&q, &a, err);
    /* One Ctrl-C is answered, before it is said to be: the next one, and one that came when the
     * answer had ended by itself, are the prompt's. */
    if (ok && strcmp(a.finish, "interrupted") == 0)
        cli_clear_interrupt();
    ok = printer_end(&printer, ok ? err : NULL) && ok;
    if (ok) {
        answer_speeds(&a, c->speeds, sizeof c->speeds);
        explain_finish(c, &a);
        ok = keep_answer(c, &a, err);
    }
    c->broken = !ok && err->code == DS4_EDEVICE;
    answer_release(&a);
    tokens_release(&prompt);
    return ok;
}

static bool say(Chat *c, Str text, ds4_err *err)
{
    if (!transcript_add(&c->talk, CHAT_USER, text, (Str){ 0 }, err))
        return false;
    if (answer_last(c, err))
        return true;
    transcript_drop_last(&c->talk);
    return false;
}

/* ---- commands ----------------------------------------------------------------------- */

static bool set_think(Chat *c, int think, const char *text)
{
    c->think = think;
    note(text);
    return true;
}

static bool do_think(Chat *c, Str arg, ds4_err *err)
{
    (void)arg, (void)err;
    return set_think(c, CHAT_THINK_HIGH, "(thinks before answering)");
}

static bool do_nothink(Chat *c, Str arg, ds4_err *err)
{
    (void)arg, (void)err;
    return set_think(c, CHAT_THINK_OFF, "(answers at once)");
}

static bool do_think_max(Chat *c, Str arg, ds4_err *err)
{
    (void)arg, (void)err;
    return set_think(c, CHAT_THINK_MAX, "(thinks with the greatest effort)");
}

static void close_engine(Chat *c)
{
    ds4_session_close(c->session);
    ds4_engine_close(c->engine);
    c->session = NULL;
    c->engine = NULL;
}

static bool open_engine(Chat *c, ds4_err *err)
{
    c->engine = cli_open_engine(&c->model, err);
    c->session = c->engine ? ds4_session_open(c->engine, err) : NULL;
    if (!c->session)
        close_engine(c);
    return c->session != NULL;
}

static bool do_ctx(Chat *c, Str arg, ds4_err *err)
{
    int before = c->model.engine.context;
    char text[16], *end;
    snprintf(text, sizeof text, "%.*s", STR_ARG(arg));
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > 1 << 24)
        return fail(err, DS4_EINVAL, "/ctx: '%.*s' is no number of tokens", STR_ARG(arg));
    close_engine(c);
    c->model.engine.context = (int)n;
    if (open_engine(c, err)) {
        note("(the conversation is read again with the next message)");
        return true;
    }
    c->model.engine.context = before;
    ds4_err again = { 0 };
    c->broken = !open_engine(c, &again);
    return false;
}

static bool do_read(Chat *c, Str arg, ds4_err *err)
{
    char path[1024];
    Bytes text = { 0 };
    snprintf(path, sizeof path, "%.*s", (int)arg.n, arg.p);
    bool ok = cli_read_text(&text, path, err);
    if (ok && text.n == 0)
        ok = fail(err, DS4_EINVAL, "%s is empty", path);
    ok = ok && say(c, bytes_view(&text), err);
    bytes_release(&text);
    return ok;
}

static bool do_status(Chat *c, Str arg, ds4_err *err)
{
    static const char *const modes[] = { "off", "on", "on", "max" };
    (void)arg, (void)err;
    ds4_info info = ds4_engine_info(c->engine);
    char weights[16], kv[16];
    fprintf(stderr, "%s\n", ds4_engine_describe(c->engine));
    fprintf(stderr, "context   %d of %d tokens, %zu messages\n", ds4_session_length(c->session),
            info.context, c->talk.n);
    fprintf(stderr, "memory    %s of weights, %s of KV\n", cli_size(weights, info.weight_bytes),
            cli_size(kv, info.kv_bytes));
    fprintf(stderr, "thinking  %s\n", modes[c->think]);
    fprintf(stderr, "sampling  temperature %g, top-k %d, top-p %g, min-p %g\n", (double)c->how.temp,
            c->how.top_k, (double)c->how.top_p, (double)c->how.min_p);
    if (c->speeds[0])
        fprintf(stderr, "last      %s\n", c->speeds);
    return true;
}

static bool do_save(Chat *c, Str arg, ds4_err *err)
{
    char path[1024];
    snprintf(path, sizeof path, "%.*s", (int)arg.n, arg.p);
    if (!saved_write(path, &c->talk, c->session, err))
        return false;
    fprintf(stderr, "(saved %zu messages, %d tokens)\n", c->talk.n, ds4_session_length(c->session));
    return true;
}

static bool do_load(Chat *c, Str arg, ds4_err *err)
{
    char path[1024];
    Transcript talk;
    snprintf(path, sizeof path, "%.*s", (int)arg.n, arg.p);
    if (!saved_read(path, &talk, c->session, err))
        return false;
    transcript_release(&c->talk);
    c->talk = talk;
    fprintf(stderr, "(loaded %zu messages, %d tokens)\n", c->talk.n,
            ds4_session_length(c->session));
    return true;
}

/* Remove the last answer; false when there is none. */
static bool drop_answer(Chat *c)
{
    if (transcript_last_role(&c->talk) != CHAT_ASSISTANT)
        return false;
    transcript_drop_last(&c->talk);
    return true;
}

static bool do_undo(Chat *c, Str arg, ds4_err *err)
{
    (void)arg;
    bool any = drop_answer(c);
    if (transcript_last_role(&c->talk) == CHAT_USER) {
        transcript_drop_last(&c->talk);
        any = true;
    }
    if (!any)
        return fail(err, DS4_EINVAL, "/undo: nothing was said yet");
    fprintf(stderr, "(%zu messages are left)\n", c->talk.n);
    return true;
}

static bool do_retry(Chat *c, Str arg, ds4_err *err)
{
    (void)arg;
    drop_answer(c);
    if (transcript_last_role(&c->talk) != CHAT_USER)
        return fail(err, DS4_EINVAL, "/retry: nothing was asked yet");
    return answer_last(c, err);
}

static bool do_system(Chat *c, Str arg, ds4_err *err)
{
    if (!transcript_system(&c->talk, arg, err))
        return false;
    note(arg.n ? "(system message set)" : "(no system message)");
    return true;
}

static bool do_quit(Chat *c, Str arg, ds4_err *err)
{
    (void)arg, (void)err;
    c->quit = true;
    return true;
}

static bool do_help(Chat *c, Str arg, ds4_err *err);

/* arg: NULL none, "[X]" optional, else needed. */
static const ChatCommand commands[] = {
    { "/help", NULL, "this list", do_help },
    { "/think", NULL, "think before answering", do_think },
    { "/nothink", NULL, "answer at once", do_nothink },
    { "/think-max", NULL, "think with the greatest effort", do_think_max },
    { "/ctx", "N", "a context of N tokens; loads the model again", do_ctx },
    { "/read", "FILE", "send a file's text as your message", do_read },
    { "/status", NULL, "model, context, memory, speeds", do_status },
    { "/save", "FILE", "save the conversation and its KV state", do_save },
    { "/load", "FILE", "go on with a saved conversation", do_load },
    { "/undo", NULL, "take back the last message and its answer", do_undo },
    { "/retry", NULL, "answer the last message again", do_retry },
    { "/system", "[TEXT]", "set the system message; without text, remove it", do_system },
    { "/quit", NULL, "end the chat", do_quit },
};

static bool do_help(Chat *c, Str arg, ds4_err *err)
{
    (void)c, (void)arg, (void)err;
    for (size_t i = 0; i < COUNT(commands); i++)
        fprintf(stderr, "  %-11s%-8s%s\n", commands[i].name, commands[i].arg ? commands[i].arg : "",
                commands[i].help);
    note("  //text     a message that begins with a slash\n"
         "Ctrl-C stops an answer. A backslash at the end of a line goes on with the next.");
    return true;
}

static const ChatCommand *find_command(Str name)
{
    for (size_t i = 0; i < COUNT(commands); i++) {
        if (str_eq(str_of(commands[i].name), name))
            return &commands[i];
    }
    return NULL;
}

static bool unknown_command(Str name, ds4_err *err)
{
    const char *names[COUNT(commands)];
    char word[64];
    for (size_t i = 0; i < COUNT(commands); i++)
        names[i] = commands[i].name;
    snprintf(word, sizeof word, "%.*s", STR_ARG(name));
    const char *near = cli_nearest(word, names, COUNT(names));
    if (near)
        return fail(err, DS4_EINVAL, "no command %s. Did you mean %s?", word, near);
    return fail(err, DS4_EINVAL, "no command %s: /help lists them, //text sends a slash", word);
}

static Str trim(Str s)
{
    while (s.n && strchr(" \t\n", s.p[0]))
        s = (Str){ s.p + 1, s.n - 1 };
    while (s.n && strchr(" \t\n", s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool run_command(Chat *c, Str line, ds4_err *err)
{
    Str name = { line.p, 0 };
    while (name.n < line.n && !strchr(" \t\n", line.p[name.n]))
        name.n++;
    Str arg = trim((Str){ line.p + name.n, line.n - name.n });
    const ChatCommand *command = find_command(name);
    if (!command)
        return unknown_command(name, err);
    if (!command->arg && arg.n)
        return fail(err, DS4_EINVAL, "%s takes no argument", command->name);
    if (command->arg && command->arg[0] != '[' && !arg.n)
        return fail(err, DS4_EINVAL, "%s needs an argument: %s %s", command->name, command->name,
                    command->arg);
    return command->run(c, arg, err);
}

/* ---- the loop ----------------------------------------------------------------------- */

static bool take_line(Chat *c, Str line, ds4_err *err)
{
    line = trim(line);
    if (!line.n)
        return true;
    if (line.p[0] != '/')
        return say(c, line, err);
    if (line.n > 1 && line.p[1] == '/')
        return say(c, (Str){ line.p + 1, line.n - 1 }, err);
    return run_command(c, line, err);
}

/* Errors of a turn are said and the chat goes on; only a script ends with one. */
static int talk(Chat *c)
{
    Bytes line = { 0 };
    int status = 0;
    while (!c->quit && !c->broken) {
        ds4_err err = { 0 };
        enum EditorEvent event = editor_line(c->editor, &line, &err);
        if (event == EDITOR_FAILED)
            status = cli_fail(&err);
        if (event == EDITOR_END || event == EDITOR_FAILED)
            break;
        if (event == EDITOR_INTERRUPT) {
            if (!editor_is_terminal(c->editor)) {
                status = 130;
                break;
            }
            note("(Ctrl-D or /quit ends the chat)");
            continue;
        }
        if (!take_line(c, bytes_view(&line), &err)) {
            int failed = cli_fail(&err);
            if (c->broken || !editor_is_terminal(c->editor))
                status = failed;
        }
    }
    bytes_release(&line);
    return status;
}

static void greet(const Chat *c)
{
    if (editor_is_terminal(c->editor))
        fprintf(stderr, "%s\n/help lists commands, Ctrl-D ends the chat.\n",
                ds4_engine_describe(c->engine));
}

static int chat(Chat *c)
{
    ds4_err err = { 0 };
    int status;
    cli_catch_interrupt(NULL); /* while loading, Ctrl-C twice ends the program */
    c->think = answer_thinking(&c->how);
    c->rng = c->how.seed;
    bool ok = transcript_system(&c->talk, str_of(c->how.system), &err) && open_engine(c, &err) &&
              (c->editor = editor_open("> ", &err)) != NULL;
    if (ok && cli_interrupted())
        ok = fail(&err, DS4_ECANCELED, "interrupted");
    if (ok) {
        cli_catch_cancel();
        greet(c);
        status = talk(c);
    } else {
        status = cli_fail(&err);
    }
    editor_close(c->editor);
    close_engine(c);
    transcript_release(&c->talk);
    return status;
}

int cmd_chat(int argc, char **argv)
{
    Chat c = { 0 };
    const Usage usage = { .usage = "ds4 chat [options]",
                          .about = about,
                          .tables = { answer_options(&c.how), cli_model_options(&c.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status < 0)
        status = answer_check(&c.how);
    return status >= 0 ? status : chat(&c);
}
