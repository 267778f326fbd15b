/* chat.h - messages to prompt, in the official encoder's form.
 *
 * A prompt is a list of runs: control tokens that the renderer placed, and
 * text. Text between two controls is tokenized as one piece with special
 * recognition off, so nothing a user types can become a control token. */
#ifndef CHAT_H
#define CHAT_H
#include "bpe.h"

enum ChatRole {
    CHAT_SYSTEM,
    CHAT_USER,
    CHAT_ASSISTANT,
    CHAT_DEVELOPER,
    CHAT_REMINDER,
    CHAT_TOOL, /* what a tool gave: becomes part of a user's turn */
};
enum ChatThink { CHAT_THINK_OFF, CHAT_THINK_LOW, CHAT_THINK_HIGH, CHAT_THINK_MAX };

/* What the model is asked to say instead of an answer. */
enum ChatTask {
    CHAT_NO_TASK,
    CHAT_ACTION,
    CHAT_QUERY,
    CHAT_AUTHORITY,
    CHAT_DOMAIN,
    CHAT_TITLE,
    CHAT_READ_URL,
};

/* arguments: the text of a JSON object. Any other text is kept as one
 * parameter with the name "arguments". */
typedef struct {
    Str id, name, arguments;
} ChatCall;

typedef struct {
    int role; /* enum ChatRole */
    Str content;
    Str reasoning;       /* assistant only; dropped before the last user turn */
    int task;            /* enum ChatTask */
    bool unfinished;     /* assistant only: no end-of-sentence after it */
    Str response_format; /* system and developer only: its JSON, in the form of json.h */

    /* system and developer only: function objects, a line of JSON each, in the
     * form of json.h. Where there is any, all reasoning is kept. */
    const Str *tools;
    size_t n_tools;

    /* assistant only */
    const ChatCall *calls;
    size_t n_calls;
    /* What was sampled after <think>, with its </think>, or after </think>: taken
     * as it is instead of reasoning, content and calls. The end-of-sentence is
     * added where it is missing. Reasoning that is to be dropped is. The calls
     * still say the order of their results. */
    const int32_t *ids;
    size_t n_ids;

    Str tool_call_id; /* tool only: the id of the call that this answers */
} ChatMessage;

typedef struct {
    int think;           /* enum ChatThink */
    bool preview;        /* effort texts of the preview release instead of 0731 */
    bool keep_reasoning; /* of all turns, not only after the last user turn */
    bool no_bos;
    bool escape_results; /* </tool_result> in what a tool gave does not end it */
    size_t context;      /* messages in front that the model has: counted, not rendered */
} ChatOptions;

/* A control token, or (control -1) sampled ids where there are any, or text. */
typedef struct {
    int32_t control;
    Str text;
    const int32_t *ids;
    size_t n_ids;
} ChatRun;
typedef struct {
    ChatRun *run;
    size_t n, cap;
    Arena arena;
    bool failed; /* to grow */
} ChatPrompt;

/* Views in the result point into its arena or into the messages. On failure
 * *out is empty. */
bool chat_render(ChatPrompt *out, const ds4_vocab *v, const ChatMessage *m, size_t n,
                 const ChatOptions *opt, ds4_err *err);
void chat_prompt_release(ChatPrompt *p);
bool chat_text(const ChatPrompt *p, const ds4_vocab *v, Bytes *out); /* exact prompt text */
bool chat_tokens(const ChatPrompt *p, const ds4_vocab *v, Tokens *out, ds4_err *err);

/* By the name that the official encoder gives it; -1: it knows none such. */
int chat_role(Str name);
int chat_task(Str name);

#endif
