/* cli.h - what the commands share: options, help, errors, progress, Ctrl-C.
 *
 * stdout carries the result only. Exit status: 0 done, 1 it failed (one line
 * on stderr), 2 wrong usage, 130 interrupted. */
#ifndef CLI_H
#define CLI_H
#include "../base/bytes.h"

/* Each command is a function in its own file, listed in main.c's table;
 * argv[0] is the command's name. Returns the exit status. */
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_parse(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_imatrix(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_kv(int argc, char **argv);
int cmd_pull(int argc, char **argv);

enum OptKind { OPT_FLAG, OPT_INT, OPT_U64, OPT_FLOAT, OPT_STR, OPT_LIST, OPT_TITLE };

/* The values of an option that may be given again and again. */
enum { MOST_VALUES = 32 };
typedef struct {
    const char *value[MOST_VALUES];
    size_t n;
} ValueList;

/* One option. names: "-c, --ctx"; arg: "N", NULL for a flag; value: bool *,
 * int *, uint64_t *, float *, const char **, ValueList * by kind. An arg like "on|off" lists
 * the only texts that are accepted. lo, hi bound the numbers
 * (both 0: any). OPT_TITLE: names is a heading of the help text. */
typedef struct {
    enum OptKind kind;
    const char *names, *arg;
    void *value;
    const char *help;
    double lo, hi;
} Option;

/* A command's synopsis and its tables; a table ends with names NULL. Tables
 * are shared: the model's options are the same for run, chat, bench, ... */
typedef struct {
    const char *usage; /* "ds4 inspect [options] FILE" */
    const char *about; /* one paragraph */
    const Option *tables[5];
    int min_args, max_args; /* positional arguments */
} Usage;

/* Parse; positional arguments go to args. Returns -1 to go on, else the exit
 * status: 0 after --help, 2 after a message (an unknown option names the
 * nearest known one). */
int cli_parse(const Usage *u, int argc, char **argv, const char **args, int *n_args);

/* Print "ds4: MESSAGE" to stderr; returns 1, or 130 for DS4_ECANCELED. */
int cli_fail(const ds4_err *err);
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Print what is wrong with the arguments; returns 2. */
int cli_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Of n names the one nearest to a misspelt one, NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t n);

/* A ds4_progress that draws a bar with rate and time left on a terminal's stderr, as much of it
 * as its width has room for, and nothing elsewhere. cli_progress_end wipes it. */
void cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
void cli_progress_end(void);

/* Ctrl-C: on_interrupt (may be NULL) is called from the handler the first
 * time; the second time the program ends with status 130. */
void cli_catch_interrupt(void (*on_interrupt)(void));
/* The same, where the first time cancels the engine that is at work. */
void cli_catch_cancel(void);
void cli_at_work(ds4_engine *e); /* NULL: none is */
bool cli_interrupted(void);
void cli_clear_interrupt(void);

/* Write to stdout; false and a message when that fails (a closed pipe, a full disk). */
bool cli_out(const void *p, size_t n, ds4_err *err);
/* "12.3 GB", "640 MB". buf holds 16. */
const char *cli_size(char buf[16], uint64_t bytes);
/* False where a file that is written would take the place of one that is read; in NULL: none is. */
bool cli_is_other(const char *out, const char *in, ds4_err *err);
/* A text of at most 256 MiB from a file of any kind, or from stdin: "-". */
bool cli_read_text(Bytes *out, const char *path, ds4_err *err);
/* A JSON string of any bytes; what is not UTF-8 becomes U+FFFD. */
void cli_json_str(Bytes *out, Str s);
/* A JSON number; null where JSON has none (infinity, NaN). */
void cli_json_num(Bytes *out, double v);
/* May text to this descriptor be coloured: a terminal, not TERM=dumb, and no NO_COLOR. */
bool cli_color(int fd);
/* The width of a terminal whose lines can be drawn again; 0: none, or TERM=dumb. */
int cli_columns(int fd);

/* The model options that most commands share, as a table over *opt, and the
 * default model: -m, ./ds4flash.gguf, the last one pulled (fetched.h), the bundled tiny
 * model (said on stderr). */
typedef struct {
    ds4_options engine;
    bool cpu, cuda;       /* --cpu, --cuda */
    const char *rounding; /* "on", "off" */
    char model_path[1024];
    Option table[14]; /* of cli_model_options */
} ModelOptions;
const Option *cli_model_options(ModelOptions *m);
/* What the options mean together: --cpu, --cuda, --rounding; the path of the model.
 * cli_open_engine does this first; ds4_plan_make's callers do it themselves. */
bool cli_model_settle(ModelOptions *m, ds4_err *err);
bool cli_model_path(ModelOptions *m, ds4_err *err);         /* fills engine.model */
bool cli_model_fits(ModelOptions *m, ds4_err *err);         /* chooses the device; reads a header */
ds4_engine *cli_open_engine(ModelOptions *m, ds4_err *err); /* plan, then open, with progress */

#endif
