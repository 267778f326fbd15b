/* chat.h - messages to prompt, in the official encoder's form.
 *
 * A prompt is a list of runs: control tokens that the renderer placed, and
 * text. Text between two controls is tokenized as one piece with special
 * recognition off, so nothing a user types can become a control token. */
#ifndef CHAT_H
#define CHAT_H
#include "bpe.h"

enum ChatRole { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_DEVELOPER, CHAT_REMINDER };
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

typedef struct {
    int role; /* enum ChatRole */
    Str content;
    Str reasoning;       /* assistant only; dropped before the last user turn */
    int task;            /* enum ChatTask */
    bool unfinished;     /* assistant only: no end-of-sentence after it */
    Str response_format; /* system and developer only: its JSON, in the form of json.h */
} ChatMessage;

typedef struct {
    int think;           /* enum ChatThink */
    bool preview;        /* effort texts of the preview release instead of 0731 */
    bool keep_reasoning; /* of all turns, not only after the last user turn */
    bool no_bos;
    size_t context; /* messages in front that the model has: counted, not rendered */
} ChatOptions;

/* control -1: text. */
typedef struct {
    int32_t control;
    Str text;
} ChatRun;
typedef struct {
    ChatRun *run;
    size_t n;
    Arena arena;
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
