/* Grammars against another implementation of JSON Schema, the npm package ajv:
 * what is written by chance is valid there, and what is valid there is taken. */
#include "../grammar_check.h"
#include "../random_schema.h"
#include "../../src/base/file.h"
#include <dirent.h>
#include <json-c/json.h>
#include <unistd.h>

enum { SCHEMAS = 300, SAMPLES = 4 };
#define CHECK    "tests/ajv_check.cjs"
#define REQUESTS "tests/data/client_requests"

typedef struct {
    Kit kit;
    Json *schemas; /* array */
    Json *known;   /* their texts, so that each is there once */
    Bytes lines;
    int written, examples;
} Proof;

static void add_schema(Proof *p, Json *schema)
{
    const char *text = json_object_to_json_string(schema);
    if (json_object_object_get_ex(p->known, text, NULL))
        return;
    json_object_object_add(p->known, text, NULL);
    json_object_array_add(p->schemas, json_object_get(schema));
}

static void add_random(Proof *p)
{
    uint64_t rng = 300;
    for (int i = 0; i < SCHEMAS; i++) {
        Bytes text = { 0 };
        random_root(&text, &rng, 3);
        bytes_byte(&text, 0);
        Json *schema = json_tokener_parse(text.p);
        assert_non_null(schema);
        json_object_array_add(p->schemas, schema);
        bytes_release(&text);
    }
}

static void add_tools(Proof *p, Json *list)
{
    for (size_t i = 0; i < json_length(list); i++) {
        Json *t = json_at(list, i), *f = json_member(t, "function");
        add_tools(p, json_member(t, "tools"));
        t = f ? f : t;
        Json *schema = json_member(t, "input_schema");
        schema = schema ? schema : json_member(t, "parameters");
        if (schema)
            add_schema(p, schema);
    }
}

static void add_request(Proof *p, const char *path)
{
    Bytes text = { 0 };
    ds4_err err;
    if (!file_read(&text, path, 8 << 20, &err))
        fail_msg("%s", err.msg);
    Json *o = json_read(bytes_view(&text), &err);
    add_tools(p, json_member(json_member(o, "body"), "tools"));
    json_free(o);
    bytes_release(&text);
}

static void add_clients(Proof *p)
{
    DIR *top = opendir(REQUESTS);
    assert_non_null(top);
    for (struct dirent *e; (e = readdir(top));) {
        char path[600];
        for (int i = 1; i < 4 && e->d_name[0] != '.'; i++) {
            snprintf(path, sizeof path, REQUESTS "/%s/%02d.json", e->d_name, i);
            if (access(path, R_OK) == 0)
                add_request(p, path);
        }
    }
    closedir(top);
}

/* Texts that the schema's grammar lets be written, as a line for the check. */
static void write_line(Proof *p, Json *schema, uint64_t *rng)
{
    Grammar *g = kit_compile(&p->kit, &(GrammarSpec){ .schema = schema });
    int n = 0;
    bytes_str(&p->lines, "{\"schema\":");
    json_write(&p->lines, schema);
    bytes_str(&p->lines, ",\"written\":[");
    for (int i = 0; i < SAMPLES; i++) {
        Bytes out = { 0 };
        int how = write_at_random(g, p->kit.v, rng, 40, &out);
        if (how < 0)
            fail_msg("%s: a blind alley behind %.*s", json_object_to_json_string(schema),
                     (int)out.n, out.p);
        if (how == 1) {
            bytes_str(&p->lines, n++ ? "," : "");
            json_write_str(&p->lines, bytes_view(&out));
        }
        bytes_release(&out);
    }
    p->written += n;
    bytes_str(&p->lines, "]}\n");
    grammar_free(g);
}

static void read_line(Proof *p, Json *schema, Str line)
{
    ds4_err err;
    Json *o = json_read(line, &err);
    if (!o)
        fail_msg("%s: %.*s", err.msg, (int)line.n, line.p);
    Json *invalid = json_member(o, "invalid"), *examples = json_member(o, "examples");
    if (json_length(invalid))
        fail_msg("%s: wrote %s", json_object_to_json_string(schema),
                 json_object_get_string(json_at(invalid, 0)));
    Grammar *g = kit_compile(&p->kit, &(GrammarSpec){ .schema = schema });
    for (size_t i = 0; i < json_length(examples); i++, p->examples++) {
        const char *text = json_object_get_string(json_at(examples, i));
        if (taken(g, text) != 2)
            fail_msg("%s: does not take %s", json_object_to_json_string(schema), text);
    }
    grammar_free(g);
    json_free(o);
}

/* What the check prints for our lines. */
static bool run_check(const Proof *p, Bytes *out)
{
    char path[] = "/tmp/ds4-ajv-XXXXXX", command[200];
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p->lines.p, 1, p->lines.n, f), p->lines.n);
    fclose(f);
    snprintf(command, sizeof command, "node " CHECK " %s", path);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, from)) > 0;)
        bytes_put(out, part, n);
    int status = pclose(from);
    unlink(path);
    return status == 0;
}

static bool has_ajv(void)
{
    return system("node -e 'require(\"ajv/dist/2020\")' 2>/dev/null") == 0;
}

static void another_validator_agrees(void **state)
{
    (void)state;
    Proof p = { .schemas = json_object_new_array(), .known = json_object_new_object() };
    Bytes answer = { 0 };
    uint64_t rng = 8;
    if (!has_ajv()) {
        print_message("SKIPPED: node or the npm package ajv is missing\n");
        json_free(p.schemas);
        json_free(p.known);
        skip();
    }
    kit_init(&p.kit);
    add_random(&p);
    add_clients(&p);
    size_t n = json_length(p.schemas), line = 0;
    for (size_t i = 0; i < n; i++)
        write_line(&p, json_at(p.schemas, i), &rng);
    assert_true(run_check(&p, &answer));
    for (size_t at = 0; at < answer.n; line++) {
        size_t end = at;
        while (end < answer.n && answer.p[end] != '\n')
            end++;
        assert_true(line < n);
        read_line(&p, json_at(p.schemas, line), (Str){ answer.p + at, end - at });
        at = end + 1;
    }
    assert_int_equal(line, n);
    print_message(
        "%zu schemas (%d by chance): %d texts written are valid, %d valid ones are taken\n", n,
        SCHEMAS, p.written, p.examples);
    assert_true(n > SCHEMAS + 40 && p.written > 1000 && p.examples > 1000);
    json_free(p.schemas);
    json_free(p.known);
    bytes_release(&p.lines);
    bytes_release(&answer);
    kit_release(&p.kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(another_validator_agrees) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
