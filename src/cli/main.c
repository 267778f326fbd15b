/* main.c - one program, many commands. */
#include "cli.h"
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} Command;

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const Command commands[] = {
    { "run", cmd_run, "one answer to one prompt" },
    { "chat", cmd_chat, "talk, with line editing and history" },
    { "serve", cmd_serve, "the HTTP server for coding agents and other clients" },
    { "kv", cmd_kv, "what a server's KV folder holds" },
    { "bench", cmd_bench, "prefill and decode speed at growing contexts, as CSV" },
    { "plan", cmd_plan, "the memory a model needs, and whether it is there" },
    { "inspect", cmd_inspect, "what is in a GGUF" },
    { "tokenize", cmd_tokenize, "text to token ids, and back" },
    { "render", cmd_render, "messages to the exact prompt" },
    { "parse", cmd_parse, "what a model said to its parts" },
    { "score", cmd_score, "how likely a model holds texts and continuations" },
    { "verify", cmd_verify, "a model beside reference vectors" },
    { "eval", cmd_eval, "a small examination: arithmetic, strings, tools, forms, recall" },
    { "logits", cmd_logits, "raw logits of given tokens" },
    { "quantize", cmd_quantize, "a published checkpoint to a GGUF" },
    { "imatrix", cmd_imatrix, "how much the inputs of experts matter, for quantize" },
    { "synth", cmd_synth, "a GGUF of random weights" },
    { "pull", cmd_pull, "download a published GGUF" },
    { "help", cmd_help, "this text, or ds4 help COMMAND" },
    { "version", cmd_version, "the version" },
};

static const Command *find(const char *name)
{
    for (size_t i = 0; i < COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COUNT(commands)];
    for (size_t i = 0; i < COUNT(commands); i++)
        names[i] = commands[i].name;
    const char *near = cli_nearest(name, names, COUNT(names));
    if (near)
        return cli_usage_error("unknown command '%.60s'. Did you mean %s?", name, near);
    return cli_usage_error("unknown command '%.60s'; ds4 help lists them", name);
}

static int print(const Bytes *b)
{
    ds4_err err = { 0 };
    bool ok =
        b->failed ? fail(&err, DS4_ENOMEM, "no memory for a text") : cli_out(b->p, b->n, &err);
    return ok ? 0 : cli_fail(&err);
}

static int cmd_help(int argc, char **argv)
{
    if (argc > 1 && argv[1][0] != '-') {
        const Command *c = find(argv[1]);
        char *help[] = { argv[1], (char[]){ "--help" }, NULL };
        return c && c->run != cmd_help ? c->run(2, help) : unknown_command(argv[1]);
    }
    Bytes b = { 0 };
    bytes_str(&b, "ds4 runs DeepSeek V4 Flash.\n\nusage: ds4 COMMAND [options]\n"
                  "       ds4 -p TEXT     the same as ds4 run -p TEXT\n"
                  "       ds4             on a terminal, the same as ds4 chat\n\n");
    for (size_t i = 0; i < COUNT(commands); i++)
        bytes_printf(&b, "  %-10s %s\n", commands[i].name, commands[i].about);
    bytes_str(&b, "\nds4 COMMAND --help lists a command's options.\n");
    int status = print(&b);
    bytes_release(&b);
    return status;
}

static int cmd_version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return cmd_help(1, argv);
    Bytes b = { 0 };
    bytes_printf(&b, "ds4 %s\n", DS4_VERSION);
    int status = print(&b);
    bytes_release(&b);
    return status;
}

/* The command, and argv from the command's name on. */
static int dispatch(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    if (strcmp(name, "ds4-bench") == 0)
        return cmd_bench(argc, argv);
    if (strcmp(name, "ds4-server") == 0)
        return cmd_serve(argc, argv);
    if (strcmp(name, "ds4-eval") == 0)
        return cmd_eval(argc, argv);
    if (argc < 2)
        return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? cmd_chat(argc, argv)
                                                             : cmd_run(argc, argv);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return cmd_help(1, argv);
    if (strcmp(argv[1], "--version") == 0)
        return cmd_version(1, argv);
    if (argv[1][0] == '-')
        return cmd_run(argc, argv);
    const Command *c = find(argv[1]);
    return c ? c->run(argc - 1, argv + 1) : unknown_command(argv[1]);
}

/* A closed stdin, stdout or stderr would let the next opened file take its
 * number, and messages would go into the file. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* Opened the wrong way round, so that using it is an error. */
        int null = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
        if (null >= 0 && null != fd)
            close(null);
    }
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error like any other, */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that may grow no longer */
    setlocale(LC_CTYPE, "");  /* for line editing; numbers stay in the C locale */
    if (argc < 1)
        return 2;
    int status = dispatch(argc, argv);
    cli_progress_end();
    if (fflush(stdout) != 0 && status == 0) {
        cli_warn("cannot write to stdout");
        status = 1;
    }
    return status;
}
