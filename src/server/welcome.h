/* welcome.h - what people see of the server: settings to paste at its start, and
 * a page to look at. */
#ifndef WELCOME_H
#define WELCOME_H
#include "dialect.h"

/* Settings of Claude Code, opencode, Codex and Pi. url: "http://127.0.0.1:8000".
 * needs_key: the server was started with API keys; a placeholder stands for one. */
void welcome_write(Bytes *out, const char *url, bool needs_key, const ServerInfo *s);

/* GET /: a page of HTML that stands alone and asks /status every two seconds: of
 * its members uptime (seconds), model, ctx, slots[] with the members of a request
 * at work, queue[], and kv with chunks and bytes. s->context 0: the model is still
 * being loaded. */
typedef struct {
    double uptime; /* seconds */
    int slots, busy, queued;
    const char *build, *quant; /* quant: what runs it, in words; NULL: not shown */
    const char *kept;          /* KV states beside the slots, in words; NULL: not shown */
} PageStatus;
void page_write(Bytes *out, const ServerInfo *s, const PageStatus *p);

#endif
