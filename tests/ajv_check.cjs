// ajv_check.cjs FILE: what another implementation says about schemas and texts.
//
// Each line of FILE is {"schema": ..., "written": [text, ...]}; each line printed
// is {"invalid": [text, ...], "examples": [text, ...]}: those of the texts that are
// not valid JSON of the schema, and values of its own that are, in two spellings.
"use strict";
const fs = require("fs");
const Ajv = require("ajv/dist/2020");

let state = 12345;
function random(n) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 4294967296) * n);
}
const pick = (list) => list[random(list.length)];

const texts = ["", "a", "abc", "hello", "ab", "xcdx", "12-34", "7-8", "é", "café", "日本", "😀😀", "wf_abc-123",
    "line\nbreak", "quote\"d", "back\\slash", "tab\t", "\u0001", "a/b", "x".repeat(20), "y z", "\u2028", "content-type"];
const numbers = [0, 1, -1, 7, 42, 1000, -0.25, 1.5, 1e-7, 2.5e-8, 1e21, 1.7e300, 123456789012, -98765.4321];

function anything(depth) {
    switch (random(depth > 0 ? 7 : 5)) {
    case 0: return null;
    case 1: return random(2) === 1;
    case 2: return pick(numbers);
    case 3: case 4: return pick(texts);
    case 5: return Array.from({ length: random(3) }, () => anything(depth - 1));
    default: return Object.fromEntries(Array.from({ length: random(3) }, () => [pick(texts), anything(depth - 1)]));
    }
}

function resolve(schema, root) {
    const joined = { ...schema };
    for (const part of [...(schema.allOf || []), ...(schema.$ref ? [lookup(schema.$ref, root)] : []),
        ...(schema.anyOf ? [pick(schema.anyOf)] : []), ...(schema.oneOf ? [pick(schema.oneOf)] : [])]) {
        if (typeof part !== "object")
            continue;
        const inner = resolve(part, root);
        joined.properties = { ...joined.properties, ...inner.properties };
        joined.required = [...(joined.required || []), ...(inner.required || [])];
        for (const key of Object.keys(inner))
            if (!(key in joined))
                joined[key] = inner[key];
    }
    return joined;
}

const lookup = (ref, root) => ref === "#" ? root : ref.slice(2).split("/").reduce((at, name) => at[name], root);

function number(s, whole) {
    const lo = s.minimum ?? (s.exclusiveMinimum !== undefined ? s.exclusiveMinimum + 1 : undefined);
    const hi = s.maximum ?? (s.exclusiveMaximum !== undefined ? s.exclusiveMaximum - 1 : undefined);
    if (lo === undefined && hi === undefined)
        return whole ? pick([0, 1, -5, 123456789, 9007199254740991]) : pick(numbers);
    const from = lo ?? hi - 1000, span = Math.min((hi ?? from + 1000) - from, 1e6);
    const x = from + random(span + 1);
    const step = s.multipleOf || 1;
    return whole ? Math.round(x / step) * step : x + pick([0, 0, 0.5, -0.25, 0.125]);
}

function string(s) {
    if (s.pattern || s.allOf)
        return pick(texts);
    const n = (s.minLength || 0) + random(Math.min((s.maxLength ?? 30) - (s.minLength || 0), 40) + 1);
    return Array.from({ length: n }, () => pick(["a", "b", " ", "é", "😀", "\"", "\\", "\n", "/", "<"])).join("");
}

function object(s, root, depth) {
    const out = {};
    const names = Object.keys(s.properties || {}).sort(() => random(3) - 1);
    for (const name of names)
        if ((s.required || []).includes(name) || random(2))
            out[name] = value(s.properties[name], root, depth - 1);
    if (s.additionalProperties !== false && random(2))
        out[pick(texts)] = value(s.additionalProperties ?? true, root, depth - 1);
    return out;
}

function array(s, root, depth) {
    const min = s.minItems || 0, n = min + random(Math.min((s.maxItems ?? min + 3) - min, 4) + 1);
    return Array.from({ length: n }, (_, i) =>
        value((s.prefixItems || [])[i] ?? s.items ?? true, root, depth - 1));
}

function value(schema, root, depth) {
    if (typeof schema !== "object" || depth < -6)
        return anything(1);
    const s = resolve(schema, root);
    if ("const" in s)
        return s.const;
    if (s.enum)
        return pick(s.enum);
    const type = pick([].concat(s.type ?? (s.properties ? "object" : "any")));
    switch (type) {
    case "null": return null;
    case "boolean": return random(2) === 1;
    case "integer": return number(s, true);
    case "number": return number(s, false);
    case "string": return string(s);
    case "array": return array(s, root, depth);
    case "object": return object(s, root, depth);
    default: return anything(2);
    }
}

// As Python's json.dumps spaces it.
function spaced(v) {
    if (Array.isArray(v))
        return "[" + v.map(spaced).join(", ") + "]";
    if (v && typeof v === "object")
        return "{" + Object.entries(v).map(([k, x]) => JSON.stringify(k) + ": " + spaced(x)).join(", ") + "}";
    return JSON.stringify(v);
}

function parsed(text) {
    try {
        return { value: JSON.parse(text) };
    } catch {
        return null;
    }
}

const ajv = new Ajv({ strict: false, validateFormats: false, logger: false });
for (const line of fs.readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean)) {
    const { schema, written } = JSON.parse(line);
    delete schema.$schema;
    delete schema.$id;
    const valid = ajv.compile(schema);
    const invalid = written.filter((text) => {
        const p = parsed(text);
        return !p || !valid(p.value);
    });
    const examples = [];
    for (let i = 0; i < 20 && examples.length < 6; i++) {
        const v = value(schema, schema, 3);
        if (valid(v))
            examples.push(random(2) ? JSON.stringify(v) : spaced(v));
    }
    process.stdout.write(JSON.stringify({ invalid, examples }) + "\n");
}
