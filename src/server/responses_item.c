/* responses_item.c - items of an answer as JSON.
 *
 * An item is written anew whenever its client is told of it: in full when it is
 * done, and as far as it has come in every beat of the heart, which replaces
 * what the client had put together from pieces. */
#include "responses_item.h"
#include "wire.h"
#include "../json/json.h"

static const struct {
    const char *type, *prefix;
} kinds[] = {
    [ITEM_REASONING] = { "reasoning", "rs_" },
    [ITEM_MESSAGE] = { "message", "msg_" },
    [ITEM_FUNCTION_CALL] = { "function_call", "fc_" },
    [ITEM_CUSTOM_CALL] = { "custom_tool_call", "ctc_" },
    [ITEM_SEARCH_CALL] = { "tool_search_call", "tsc_" },
    [ITEM_SHELL_CALL] = { "local_shell_call", "lsh_" },
};

const char *item_prefix(enum ItemKind kind) { return kinds[kind].prefix; }

bool item_is_call(const OutputItem *it) { return it->kind >= ITEM_FUNCTION_CALL; }

void item_release(OutputItem *it)
{
    bytes_release(&it->name);
    bytes_release(&it->text);
    bytes_release(&it->handle);
}

void item_write_part(const char *type, Str text, Bytes *out)
{
    bytes_printf(out, "{\"type\":\"%s\",", type);
    if (strcmp(type, "output_text") == 0)
        bytes_str(out, "\"annotations\":[],\"logprobs\":[],");
    bytes_str(out, "\"text\":");
    wire_str(out, text);
    bytes_byte(out, '}');
}

/* ,"MEMBER":[the part, if there is one] */
static void write_parts(const OutputItem *it, const char *member, const char *type, Bytes *out)
{
    bytes_printf(out, ",\"%s\":[", member);
    if (it->part)
        item_write_part(type, bytes_view(&it->text), out);
    bytes_byte(out, ']');
}

static void write_str(const char *member, Str s, Bytes *out)
{
    bytes_printf(out, ",\"%s\":", member);
    wire_str(out, s);
}

static void write_reasoning(const OutputItem *it, const Telling *told, Bytes *out)
{
    if (told->summary && !told->raw)
        write_parts(it, "summary", "summary_text", out);
    else
        bytes_str(out, ",\"summary\":[]");
    if (told->raw)
        write_parts(it, "content", "reasoning_text", out);
    if (told->encrypted && it->handle.n)
        write_str("encrypted_content", bytes_view(&it->handle), out);
}

static void write_status(const OutputItem *it, Bytes *out)
{
    static const char *const names[] = {
        [ITEM_OPEN] = "in_progress", [ITEM_DONE] = "completed", [ITEM_CUT] = "incomplete"
    };
    write_str("status", str_of(names[it->state]), out);
}

static void write_message(const OutputItem *it, Bytes *out)
{
    bytes_str(out, ",\"role\":\"assistant\"");
    write_parts(it, "content", "output_text", out);
}

/* ---- calls ------------------------------------------------------------------------- */

static void write_call(const OutputItem *it, const char *member, Bytes *out)
{
    write_str(member, bytes_view(&it->text), out);
    write_str("name", bytes_view(&it->name), out);
    if (it->tool && it->tool->space.n)
        write_str("namespace", it->tool->space, out);
}

/* The arguments when they are complete; NULL before. */
static Json *arguments_of(const OutputItem *it, Bytes *out)
{
    ds4_err err = { 0 };
    Json *o = it->state == ITEM_DONE ? json_read(bytes_view(&it->text), &err) : NULL;
    out->failed |= err.code == DS4_ENOMEM;
    if (json_is_object(o))
        return o;
    json_free(o);
    return NULL;
}

static void write_search(const OutputItem *it, Bytes *out)
{
    Json *arguments = arguments_of(it, out);
    bytes_str(out, ",\"execution\":\"client\",\"arguments\":");
    if (arguments)
        json_write(out, arguments);
    else
        bytes_str(out, "{}");
    json_free(arguments);
}

/* The API has a form of its own for what a shell is to do. */
static void write_shell(const OutputItem *it, Bytes *out)
{
    static const struct {
        const char *member, *otherwise;
    } members[] = {
        { "command", "[]" },
        { "env", "{}" },
        { "user", "null" },
        { "timeout_ms", "null" },
        { "working_directory", "null" },
    };
    Json *arguments = arguments_of(it, out);
    bytes_str(out, ",\"action\":{\"type\":\"exec\"");
    for (size_t i = 0; i < COUNT(members); i++) {
        const Json *m = json_member(arguments, members[i].member);
        bytes_printf(out, ",\"%s\":", members[i].member);
        if (m)
            json_write(out, m);
        else
            bytes_str(out, members[i].otherwise);
    }
    bytes_byte(out, '}');
    json_free(arguments);
}

/* ---- any of them -------------------------------------------------------------------- */

void item_write(const OutputItem *it, const Telling *told, Bytes *out)
{
    out->failed |= it->name.failed || it->text.failed || it->handle.failed;
    bytes_printf(out, "{\"id\":\"%s\",\"type\":\"%s\"", it->id, kinds[it->kind].type);
    if (it->kind != ITEM_REASONING)
        write_status(it, out);
    if (item_is_call(it))
        write_str("call_id", str_of(it->call_id), out);
    switch (it->kind) {
    case ITEM_REASONING: write_reasoning(it, told, out); break;
    case ITEM_MESSAGE: write_message(it, out); break;
    case ITEM_FUNCTION_CALL: write_call(it, "arguments", out); break;
    case ITEM_CUSTOM_CALL: write_call(it, "input", out); break;
    case ITEM_SEARCH_CALL: write_search(it, out); break;
    case ITEM_SHELL_CALL: write_shell(it, out); break;
    }
    bytes_byte(out, '}');
}
