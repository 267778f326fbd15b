/* JSON schemas: what they admit is taken, what they do not is not, and what is
 * written under them by chance is valid. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "../grammar_check.h"
#include "../random_schema.h"
#include <json-c/json.h>
#include <math.h>
#include <pcre2.h>

static Grammar *of_schema(Json *schema)
{
    return kit_compile(&kit, &(GrammarSpec){ .schema = schema });
}

/* ---- tables ------------------------------------------------------------------------- */

typedef struct {
    const char *schema;
    const char *takes[8], *rejects[12];
} Case;

static const Case cases[] = {
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"n\":{\"type\":"
      "\"integer\"}},"
      "\"required\":[\"a\",\"n\"],\"additionalProperties\":false}",
      { "{\"a\":\"x\",\"n\":1}", "{\"n\": 1, \"a\": \"\"}", "{\"a\": \"\\n\\u00e9é😀\", \"n\": -12}",
        "{\"a\":\"\\ud83d\\ude00\",\"n\":0}" },
      { "{}", "{\"a\":\"x\"}", "{\"a\":\"x\",\"n\":1,\"n\":2}", "{\"a\":\"x\",\"n\":1.5}",
        "{\"a\":\"x\",\"n\":1,\"b\":2}", "{\"a\":\"x\" ,\"n\":1}", "{\"a\":  \"x\",\"n\":1}",
        " {\"a\":\"x\",\"n\":1}", "{\"a\":\"\n\",\"n\":1}", "{\"a\":\"\\ud83d\",\"n\":1}",
        "{\"a\":\"x\",\"n\":1}}", "{\"a\":\"x\",}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}}}",
      { "{}", "{\"a\":null}", "{\"b\":[1,{\"c\":[]}]}", "{\"b\":1, \"a\":null, \"c\":\"\"}" },
      { "{\"a\":1}", "{\"\\u0061\":1}", "[]", "{\"b\"}" } },
    { "{}",
      { "1", "\"a\"", "[[],[{}]]", "{\"a\":{\"b\":null}}", "-1.5e-7", "true" },
      { "", "nul", "01", "1.", "+1", "'a'", "[1,]", "{,}", ".5", "tru e" } },
    { "true", { "1", "{}" }, { "", "x" } },
    { "{\"type\":[\"string\",\"null\"],\"minLength\":2,\"maxLength\":3}",
      { "\"ab\"", "\"éé\"", "\"😀\\ud83d\\ude00x\"", "null", "\"\\n\\n\"" },
      { "\"a\"", "\"abcd\"", "\"é\"", "1", "\"\\ud83d\\ude00\"" } },
    { "{\"type\":\"string\",\"nullable\":true,\"pattern\":\"^[a-c]+$\",\"maxLength\":4}",
      { "\"a\"", "\"abca\"", "null" },
      { "\"\"", "\"abcab\"", "\"d\"", "\"ab" } },
    { "{\"type\":\"string\",\"pattern\":\"x.y\"}",
      { "\"x.y\"", "\"aaxzyb\"", "\"x\\\"y\"", "\"\\nxxy\"" },
      { "\"xy\"", "\"x\\ny\"" } },
    { "{\"allOf\":[{\"pattern\":\"^[^\\\\n\\\\r]*$\"},{\"pattern\":\"^[\\\\s\\\\S]{0,5}$\"}],"
      "\"type\":\"string\"}",
      { "\"\"", "\"12345\"", "\"ééééé\"" },
      { "\"123456\"", "\"a\\nb\"" } },
    { "{\"enum\":[\"a\",\"a b\",1,2.5,null,[1, 2],{\"k\":\"v, w\"}]}",
      { "\"a\"", "\"a b\"", "1", "2.5", "null", "[1,2]", "{\"k\": \"v, w\"}", "[1, 2]" },
      { "\"\"", "\"b\"", "2", "[1]", "{\"k\":\"v,w\"}", "\"a" } },
    { "{\"enum\":[1,2,3,\"x\"],\"type\":\"integer\",\"minimum\":2}",
      { "2", "3" },
      { "1", "\"x\"", "4" } },
    { "{\"const\":\"deleted\"}", { "\"deleted\"" }, { "\"delete\"", "null" } },
    { "{\"const\":null}", { "null" }, { "0", "\"\"" } },
    { "{\"type\":\"integer\",\"minimum\":-5,\"exclusiveMaximum\":10,\"multipleOf\":5}",
      { "-5", "0", "5" },
      { "10", "-10", "3", "5.0", "05", "-0" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":1.5}",
      { "0.1", "1.5", "1", "1.50", "0.0001" },
      { "0", "0.0", "1.51", "2", "-1", "15" } },
    { "{\"type\":\"number\",\"minimum\":0,\"exclusiveMinimum\":true}",
      { "1", "0.5" },
      { "0", "-1" } },
    { "{\"type\":\"integer\",\"maximum\":9007199254740991}",
      { "9007199254740991", "-1" },
      { "9007199254740992", "1.0" } },
    { "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":3}",
      { "[true]", "[true,false, true]" },
      { "[]", "[true,true,true,true]", "[1]", "[true,]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],"
      "\"items\":{\"type\":\"null\"}}",
      { "[]", "[1]", "[1,\"a\"]", "[1,\"a\",null,null]" },
      { "[\"a\"]", "[1,2]", "[1,\"a\",1]" } },
    { "{\"type\":\"array\",\"items\":[{\"type\":\"integer\"}],\"additionalItems\":false}",
      { "[]", "[1]" },
      { "[1,2]", "[\"\"]" } },
    { "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\",\"c\"]},\"uniqueItems\":true,"
      "\"minItems\":1}",
      { "[\"a\"]", "[\"c\",\"a\"]", "[\"a\", \"b\", \"c\"]" },
      { "[]", "[\"a\",\"a\"]", "[\"d\"]" } },
    { "{\"anyOf\":[{\"type\":\"string\",\"enum\":[\"p\",\"q\"]},{\"const\":\"deleted\"},{\"type\":"
      "\"integer\"}]}",
      { "\"p\"", "\"deleted\"", "7" },
      { "\"r\"", "1.5", "null" } },
    { "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#"
      "\"}}]}",
      { "null", "[null,[]]" },
      { "1", "[1]", "" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"additionalProperties\":false,"
      "\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
      { "{\"a\":1}", "{\"b\":[]}" },
      { "{}", "{\"c\":1}" } },
    { "{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":3}}},{\"properties\":{\"a\":{\"type\":"
      "\"integer\"},"
      "\"b\":{\"type\":\"null\"}},\"required\":[\"a\"]}],\"type\":\"object\"}",
      { "{\"a\":3}", "{\"b\":null,\"a\":4}" },
      { "{\"a\":2}", "{\"a\":3.5}", "{}", "{\"a\":3,\"b\":1}" } },
    { "{\"$ref\":\"#/$defs/"
      "node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
      "\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
      "node\"}}},\"required\":[\"v\"],"
      "\"additionalProperties\":false}}}",
      { "{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[]},{\"v\":3}]}" },
      { "{\"kids\":[]}", "{\"v\":1,\"kids\":[{}]}", "{\"v\":1,\"kids\":[1]}" } },
    { "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"propertyNames\":{"
      "\"pattern\":"
      "\"^[a-z]+$\"},\"minProperties\":1,\"maxProperties\":2}",
      { "{\"a\":1}", "{\"ab\":1, \"c\":2}" },
      { "{}", "{\"A\":1}", "{\"a\":\"\"}", "{\"a\":1,\"b\":2,\"c\":3}" } },
    { "{\"type\":\"object\",\"patternProperties\":{\"^x_\":{\"type\":\"integer\"}},"
      "\"properties\":{\"x_a\":{\"minimum\":5}},\"additionalProperties\":{\"type\":\"null\"}}",
      { "{\"x_\":1}", "{\"x_a\":5,\"x_b\":-1,\"y\":null}" },
      { "{\"x_b\":null}", "{\"y\":1}", "{\"x_a\":4}", "{\"x_a\":null}" } },
    { "{\"type\":\"object\",\"properties\":{\"q\\\"uo\\nte\":{\"type\":\"null\"},\"é\":{}},"
      "\"additionalProperties\":false}",
      { "{\"q\\\"uo\\nte\":null}", "{\"é\":1}" },
      { "{\"q\":null}", "{\"e\":1}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":true},\"unevaluatedProperties\":"
      "false}",
      { "{}", "{\"b\":1}" },
      { "{\"a\":1}", "{\"c\":1}" } },
    { "{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$schema\":\"s\",\"$"
      "id\":\"i\","
      "\"deprecated\":true,\"readOnly\":true,\"format\":\"uri\",\"x-other\":{},\"type\":"
      "\"string\"}",
      { "\"anything\"" },
      { "1" } },
};

static void tables_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        Json *schema = json_tokener_parse(cases[i].schema);
        assert_non_null(schema);
        Grammar *g = of_schema(schema);
        for (size_t k = 0; k < COUNT(cases[i].takes) && cases[i].takes[k]; k++) {
            if (taken(g, cases[i].takes[k]) != 2)
                fail_msg("%s does not take %s", cases[i].schema, cases[i].takes[k]);
        }
        for (size_t k = 0; k < COUNT(cases[i].rejects) && cases[i].rejects[k]; k++) {
            if (taken(g, cases[i].rejects[k]) == 2)
                fail_msg("%s takes %s", cases[i].schema, cases[i].rejects[k]);
        }
        grammar_free(g);
        json_free(schema);
    }
}

static void refused(const char *text, const char *part)
{
    Json *schema = json_tokener_parse(text);
    ds4_err err = { 0 };
    assert_non_null(schema);
    Grammar *g = grammar_compile(&(GrammarSpec){ .schema = schema }, kit.trie, kit.v, &err);
    if (g || !strstr(err.msg, part))
        fail_msg("%s: expected \"%s\", got \"%s\"", text, part, g ? "a grammar" : err.msg);
    assert_int_equal(err.code, DS4_EINVAL);
    json_free(schema);
}

static void what_is_not_understood_is_named_with_its_place(void **state)
{
    (void)state;
    refused("{\"if\":{}}", "\"if\" at \"\"");
    refused("{\"properties\":{\"a/b\":{\"not\":{\"type\":\"null\"}}}}",
            "\"not\" at \"/properties/a~1b\"");
    refused("{\"items\":{\"contains\":{}}}", "\"contains\" at \"/items\"");
    refused("{\"anyOf\":[{},{\"dependentRequired\":{}}]}", "\"dependentRequired\" at \"/anyOf/1\"");
    refused("{\"type\":\"array\",\"uniqueItems\":true}", "\"uniqueItems\"");
    refused("{\"type\":\"number\",\"multipleOf\":0.01}", "\"multipleOf\"");
    refused("{\"type\":\"widget\"}", "\"type\"");
    refused("{\"$ref\":\"#/$defs/none\"}", "leads nowhere");
    refused("{\"$ref\":\"http://example.org/s\"}", "\"$ref\"");
    refused("{\"$ref\":\"#\"}", "back to itself");
    refused("{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
            "satisfy");
    refused("{\"minimum\":1,\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "too large");
    refused("{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "looking around");
    refused("{\"type\":\"string\",\"pattern\":\"^a$\",\"minLength\":2}", "satisfy");
    refused("{\"minimum\":\"a\"}", "\"minimum\"");
    refused("{\"properties\":[]}", "\"properties\"");
    refused("{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "satisfy");
    refused("false", "satisfy");
    refused("7", "is no schema");
}

/* ---- a validator of our own ----------------------------------------------------------- */

static bool valid(Json *root, Json *schema, Json *value);

static bool pattern_found(Json *pattern, Json *value)
{
    int error;
    size_t at;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)json_object_get_string(pattern), PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &error, &at, NULL);
    assert_non_null(code);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(code, NULL);
    int n = pcre2_match(code, (PCRE2_SPTR)json_object_get_string(value),
                        (size_t)json_object_get_string_len(value), 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(code);
    return n >= 0;
}

static bool has_type(Json *name, Json *value)
{
    const char *type = json_object_get_string(name);
    switch (json_object_get_type(value)) {
    case json_type_null: return !strcmp(type, "null");
    case json_type_boolean: return !strcmp(type, "boolean");
    case json_type_int: return !strcmp(type, "integer") || !strcmp(type, "number");
    case json_type_double:
        return !strcmp(type, "number") ||
               (!strcmp(type, "integer") &&
                floor(json_object_get_double(value)) == json_object_get_double(value));
    case json_type_string: return !strcmp(type, "string");
    case json_type_array: return !strcmp(type, "array");
    default: return !strcmp(type, "object");
    }
}

static bool listed(Json *array, Json *value)
{
    for (size_t i = 0; i < json_length(array); i++) {
        if (json_object_equal(json_at(array, i), value))
            return true;
    }
    return false;
}

/* A whole number's digits are divided by hand: past 2^53 a double is another number. */
static bool is_multiple(Json *value, Json *multiple)
{
    const char *digits = json_object_get_string(value);
    int64_t rest = 0, divisor = json_object_get_int64(multiple);
    digits += digits[0] == '-';
    if (digits[strspn(digits, "0123456789")] != '\0')
        return fmod(json_object_get_double(value), json_object_get_double(multiple)) == 0;
    for (; *digits; digits++)
        rest = (rest * 10 + *digits - '0') % divisor;
    return rest == 0;
}

static bool valid_number(Json *schema, Json *value)
{
    const double x = json_object_get_double(value);
    Json *lo = json_member(schema, "minimum"), *hi = json_member(schema, "maximum");
    Json *above = json_member(schema, "exclusiveMinimum"),
         *below = json_member(schema, "exclusiveMaximum");
    Json *multiple = json_member(schema, "multipleOf");
    return (!lo || x >= json_object_get_double(lo)) && (!hi || x <= json_object_get_double(hi)) &&
           (!above || x > json_object_get_double(above)) &&
           (!below || x < json_object_get_double(below)) &&
           (!multiple || is_multiple(value, multiple));
}

static bool valid_string(Json *schema, Json *value)
{
    Json *min = json_member(schema, "minLength"), *max = json_member(schema, "maxLength");
    Json *pattern = json_member(schema, "pattern");
    Str s = json_text(value);
    int chars = 0;
    for (size_t i = 0; i < s.n; i++)
        chars += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return (!min || chars >= json_object_get_int(min)) &&
           (!max || chars <= json_object_get_int(max)) &&
           (!pattern || pattern_found(pattern, value));
}

static bool valid_array(Json *root, Json *schema, Json *value)
{
    Json *min = json_member(schema, "minItems"), *max = json_member(schema, "maxItems");
    Json *items = json_member(schema, "items"), *prefix = json_member(schema, "prefixItems");
    size_t n = json_length(value);
    bool ok = (!min || n >= (size_t)json_object_get_int(min)) &&
              (!max || n <= (size_t)json_object_get_int(max));
    for (size_t i = 0; i < n && ok; i++) {
        Json *s = i < json_length(prefix) ? json_at(prefix, i) : items;
        ok = !s || valid(root, s, json_at(value, i));
        for (size_t k = 0; ok && json_is_bool(json_member(schema, "uniqueItems"), true) && k < i;
             k++)
            ok = !json_object_equal(json_at(value, i), json_at(value, k));
    }
    return ok;
}

static bool valid_object(Json *root, Json *schema, Json *value)
{
    Json *named = json_member(schema, "properties"),
         *other = json_member(schema, "additionalProperties");
    Json *required = json_member(schema, "required"), *one;
    Json *min = json_member(schema, "minProperties"), *max = json_member(schema, "maxProperties");
    int n = json_object_object_length(value);
    bool ok = (!min || n >= json_object_get_int(min)) && (!max || n <= json_object_get_int(max));
    for (size_t i = 0; i < json_length(required) && ok; i++)
        ok = json_object_object_get_ex(value, json_object_get_string(json_at(required, i)), &one);
    json_object_object_foreach(value, key, member)
    {
        Json *s = named && json_object_object_get_ex(named, key, &one) ? one : other;
        ok = ok && (!s || valid(root, s, member));
    }
    return ok;
}

static bool valid_joined(Json *root, Json *schema, Json *value)
{
    Json *all = json_member(schema, "allOf"), *any = json_member(schema, "anyOf");
    Json *ref = json_member(schema, "$ref");
    bool ok = true, one = !any;
    for (size_t i = 0; i < json_length(all); i++)
        ok &= valid(root, json_at(all, i), value);
    for (size_t i = 0; i < json_length(any); i++)
        one |= valid(root, json_at(any, i), value);
    if (ref) /* only #/$defs/NAME in these tests */
        ok &= valid(root, json_member(json_member(root, "$defs"), json_object_get_string(ref) + 8),
                    value);
    return ok && one;
}

static bool valid(Json *root, Json *schema, Json *value)
{
    Json *type = json_member(schema, "type"), *list = json_member(schema, "enum");
    Json *only = json_member(schema, "const");
    if (json_object_is_type(schema, json_type_boolean))
        return json_object_get_boolean(schema);
    bool ok = !type;
    for (size_t i = 0; i < (json_is_array(type) ? json_length(type) : type ? 1u : 0u); i++)
        ok |= has_type(json_is_array(type) ? json_at(type, i) : type, value);
    ok = ok && (!list || listed(list, value)) && (!only || json_object_equal(only, value)) &&
         valid_joined(root, schema, value);
    switch (json_object_get_type(value)) {
    case json_type_int:
    case json_type_double: return ok && valid_number(schema, value);
    case json_type_string: return ok && valid_string(schema, value);
    case json_type_array: return ok && valid_array(root, schema, value);
    case json_type_object: return ok && valid_object(root, schema, value);
    default: return ok;
    }
}

/* ---- what is written by chance ----------------------------------------------------------- */

/* Whether it came to an end: chance may pass by the names that are required. */
static bool check_written(Json *schema, Grammar *g, uint64_t *rng, const char *text)
{
    Bytes out = { 0 };
    int how = write_at_random(g, kit.v, rng, 40, &out);
    if (how < 0)
        fail_msg("%s: a blind alley behind %.*s", text, (int)out.n, out.p);
    bytes_byte(&out, 0);
    if (how == 0) {
        bytes_release(&out);
        return false;
    }
    Json *value = json_tokener_parse(out.p);
    if (!value && strcmp(out.p, "null") != 0)
        fail_msg("%s: wrote no JSON: %s", text, out.p);
    if (!valid(schema, schema, value))
        fail_msg("%s: wrote %s", text, out.p);
    json_free(value);
    bytes_release(&out);
    return true;
}

static void what_is_written_by_chance_is_valid(void **state)
{
    (void)state;
    uint64_t rng = 2026;
    int written = 0;
    for (int i = 0; i < 300; i++) {
        Bytes text = { 0 };
        random_root(&text, &rng, 3);
        bytes_byte(&text, 0);
        Json *schema = json_tokener_parse(text.p);
        if (!schema)
            fail_msg("%s", text.p);
        Grammar *g = of_schema(schema);
        for (int k = 0; k < 4; k++)
            written += check_written(schema, g, &rng, text.p);
        grammar_free(g);
        json_free(schema);
        bytes_release(&text);
    }
    print_message("%d of 1200 came to an end\n", written);
    assert_true(written > 1000);
}

/* What one schema admits, another admits where our validator says so: texts
 * written under one schema are tried under the next. */
static void what_is_valid_is_taken(void **state)
{
    (void)state;
    uint64_t rng = 7;
    int both = 0;
    for (int i = 0; i < 200; i++) {
        Bytes text[2] = { { 0 } }, out = { 0 };
        Json *schema[2];
        Grammar *g[2];
        for (int k = 0; k < 2; k++) {
            random_root(&text[k], &rng, i % 3);
            bytes_byte(&text[k], 0);
            schema[k] = json_tokener_parse(text[k].p);
            g[k] = of_schema(schema[k]);
        }
        bool ended = write_at_random(g[0], kit.v, &rng, 12, &out) == 1;
        bytes_byte(&out, 0);
        Json *value = ended ? json_tokener_parse(out.p) : NULL;
        bool ok = ended && valid(schema[1], schema[1], value);
        both += ok;
        if (ended && ok != (taken(g[1], out.p) == 2))
            fail_msg("%s: %s is %s", text[1].p, out.p,
                     ok ? "valid, but not taken" : "taken, but not valid");
        json_free(value);
        for (int k = 0; k < 2; k++) {
            grammar_free(g[k]);
            json_free(schema[k]);
            bytes_release(&text[k]);
        }
        bytes_release(&out);
    }
    assert_true(both > 10);
}

/* ---- large ones ------------------------------------------------------------------------------ */

static void many_properties_come_in_their_order(void **state)
{
    (void)state;
    Bytes text = { 0 };
    bytes_str(&text, "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"p3\","
                     "\"p90\"],\"properties\":{");
    for (int i = 0; i < 100; i++)
        bytes_printf(&text, "%s\"p%d\":{\"type\":\"integer\"}", i ? "," : "", i);
    bytes_str(&text, "}}");
    bytes_byte(&text, 0);
    Json *schema = json_tokener_parse(text.p);
    Grammar *g = of_schema(schema);
    takes(g, "{\"p3\":1,\"p90\":2}");
    takes(g, "{\"p0\":0,\"p3\":1,\"p50\":1,\"p90\":2,\"p99\":3}");
    rejects(g, "{\"p3\":1}");
    rejects(g, "{\"p90\":1,\"p3\":1}");
    rejects(g, "{\"p4\":1,\"p90\":1}");
    rejects(g, "{\"p3\":1,\"p3\":1,\"p90\":2}");
    grammar_free(g);
    json_free(schema);
    bytes_release(&text);
}

static void depth_has_an_end_that_is_no_blind_alley(void **state)
{
    (void)state;
    char deep[300];
    Json *schema = json_tokener_parse("{}");
    Grammar *g = of_schema(schema);
    GrammarRun *r = grammar_start(g, NULL);
    int depth = 0;
    while (grammar_bytes(r, STR("[")))
        depth++;
    assert_in_range(depth, 64, 128);
    assert_true(grammar_bytes(r, STR("]")));
    grammar_end(r);
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    deep[128] = 0;
    takes(g, deep);
    grammar_free(g);
    json_free(schema);
}

static void long_strings_are_counted(void **state)
{
    (void)state;
    Json *schema =
        json_tokener_parse("{\"type\":\"string\",\"minLength\":3000,\"maxLength\":70000}");
    Grammar *g = of_schema(schema);
    for (int n = 2999; n <= 70001; n += n == 3000 ? 67000 : 1) {
        Bytes text = { 0 };
        bytes_byte(&text, '"');
        bytes_fill(&text, 'x', (size_t)n);
        bytes_str(&text, "\"");
        bytes_byte(&text, 0);
        assert_int_equal(taken(g, text.p) == 2, n >= 3000 && n <= 70000);
        bytes_release(&text);
    }
    grammar_free(g);
    json_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_hold),
        cmocka_unit_test(what_is_not_understood_is_named_with_its_place),
        cmocka_unit_test(what_is_written_by_chance_is_valid),
        cmocka_unit_test(what_is_valid_is_taken),
        cmocka_unit_test(many_properties_come_in_their_order),
        cmocka_unit_test(depth_has_an_end_that_is_no_blind_alley),
        cmocka_unit_test(long_strings_are_counted),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
