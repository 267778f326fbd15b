/* tool_memory.h - the tools that a conversation began with, where a client leaves
 * some of them out.
 *
 * Codex sends no tools when it has a conversation summed up, Claude Code moves
 * some behind a search. The block of tools stands at the start of the prompt: with
 * another one, nothing that the KV state holds would be of use. So tools that went
 * missing keep their place in the prompt, and are barred (spec: server R-KV-6).
 * All functions may be called by any thread. */
#ifndef TOOL_MEMORY_H
#define TOOL_MEMORY_H
#include "turn.h"
#include "../store/store.h"

typedef struct ToolMemory ToolMemory;

/* Bounds, of which each makes the conversations longest unused be forgotten: of
 * conversations and of bytes. 0: 1024 and 32 MiB. */
ToolMemory *tool_memory_new(size_t max_conversations, size_t max_bytes, ds4_err *err);
void tool_memory_free(ToolMemory *m);

/* Blocks that earlier processes with the store's directory knew are known from now on,
 * and those to come are kept there: at most so many bytes. Before anything else is asked.
 * False: it goes on in memory alone. The store is to be closed after the last call. */
bool tool_memory_persist(ToolMemory *m, Store *s, uint64_t max_bytes, ds4_err *err);

/* For a turn that was read, before recall_apply, to which the block is a part of
 * what is visible. A conversation is known by its keys of session and agent, its
 * system text and its first user message; without a key of session it is not. If it
 * goes on (an assistant has spoken) and all tools of its block stood in the known
 * block, in this order, the block becomes the known one; tools that the turn does
 * not declare are added to it as barred ones, and where it declares none the
 * choice is none. Otherwise its block, unless it is empty, is what is known from
 * now on. Where memory is exhausted the turn stays as it is. */
void tool_memory_apply(ToolMemory *m, Turn *t);

#endif
