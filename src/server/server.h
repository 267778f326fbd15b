/* server.h - ds4 as a server: HTTP in, answers out.
 *
 *   network thread   owns all sockets, and speaks the APIs (exchange.h, routes.h)
 *   workers          read and tokenize requests            (prepare.h)
 *   engine's thread  opens the model, runs it              (scheduler.h)
 *
 * The thread that calls server_run is the network thread. It listens from the
 * beginning; until the model is loaded, requests are told to come again. */
#ifndef SERVER_H
#define SERVER_H
#include "http.h"

typedef struct Server Server;

typedef struct {
    HttpOptions http;     /* its keys are further ones */
    const char *key_file; /* API keys, one a line, # begins a comment; or NULL */

    /* Called on the engine's thread: once, and each time that it was unloaded. */
    ds4_engine *(*open)(void *user, ds4_err *err);
    /* The same model, only for its vocabulary, while the engine is unloaded; NULL: it never is. */
    ds4_engine *(*open_words)(void *user, ds4_err *err);
    /* A line for people: without a line end; from any thread. One about a request begins
     * with its id, "req_...". */
    void (*log)(void *user, const char *line);
    /* The model is loaded: the settings of clients, for people. */
    void (*welcome)(void *user, const char *text);
    void *user;

    const char *model_id;   /* how clients call it; NULL: deepseek-v4-flash */
    const char *model_path; /* for /props */
    const char *device;     /* for the metrics; NULL: the default one */
    const char *trace_dir;  /* a folder for all that comes and goes; NULL: none */
    const char *kv_dir;     /* where KV states outlive the server; NULL: nowhere */
    uint64_t kv_disk_bytes; /* all that may lie there */
    uint64_t kv_ram_bytes;  /* of states in memory beside the slots; 0 without kv_dir: none */
    bool unrounded;         /* the engine's option */
    int default_think;      /* enum ChatThink */
    bool strict_model, strict_media, strict_anthropic, client_sampling, usage_plain;
    bool schema_in_prompt;
    bool loop_guard;
    int max_active, max_queue; /* 0: as many as sessions; 64 */
    int heartbeat_ms;          /* of silence; 0: 5000 */
    int queue_wait_seconds;    /* the longest wait in the queue; 0: no limit */
    int drain_seconds;         /* that answers may go on when the server is to end */
    int shutdown_seconds;      /* that all of the end may take, with saving */
    int unload_seconds;        /* without work, until the engine is closed; 0: never */
    int retry_seconds;         /* that an answer goes on unheard, if nobody minds; 0: none */
} ServerOptions;

/* Listens; opt's texts stay borrowed. */
Server *server_open(const ServerOptions *opt, ds4_err *err);
const char *server_where(const Server *s);
/* Until it has been told to end, and has. False: the model could not be loaded,
 * or its device failed. */
bool server_run(Server *s, ds4_err *err);
void server_close(Server *s); /* NULL is fine */

/* Signal-safe. The first call lets answers go on for a while, the second ends them. */
void server_end(Server *s);
void server_reload(Server *s); /* the file of keys is read again; signal-safe */
/* The engine's progress of loading; any thread. */
void server_loading(Server *s, uint64_t done, uint64_t total);

#endif
