/* page.c - the page at /: one document without anything from elsewhere.
 *
 * It is right as it is sent; its script only keeps it so. The script puts in
 * what it reads as text, never as markup. */
#include "welcome.h"

static void put_html(Bytes *out, const char *s)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {
        { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" }, { '"', "&quot;" }, { '\'', "&#39;" },
    };
    for (; s && *s; s++) {
        size_t i = 0;
        while (i < COUNT(entities) && entities[i].c != *s)
            i++;
        if (i < COUNT(entities))
            bytes_str(out, entities[i].entity);
        else
            bytes_byte(out, (unsigned char)*s);
    }
}

static const char head[] =
    "<!doctype html>\n"
    "<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<title>ds4</title>\n"
    "<style>\n"
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:44em;padding:0 1em;"
    "color:#222;background:#fff}\n"
    "h1{font-size:1.3em}th{text-align:left;font-weight:normal;color:#666;padding-right:1.5em}\n"
    "#jobs td{padding-right:1.5em}\n"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}th{color:#999}}\n"
    "</style></head><body>\n";

/* Of a slot that works the members are those of /status. */
static const char script[] =
    "<script>\n"
    "function put(id, text) { document.getElementById(id).textContent = text; }\n"
    "function time(s) {\n"
    "  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24;\n"
    "  const m = Math.floor(s / 60) % 60;\n"
    "  return d ? d + ' d ' + h + ' h' : h ? h + ' h ' + m + ' min' :\n"
    "    m ? m + ' min' : Math.floor(s) + ' s';\n"
    "}\n"
    "function size(n) { return n < 1e9 ? Math.round(n / 1e6) + ' MB' : (n / 1e9).toFixed(1) + ' "
    "GB'; }\n"
    "function kept(kv) {\n"
    "  const ram = kv.ram_chunks + ' chunks in memory (' + size(kv.ram_bytes) + ')';\n"
    "  return kv.dir ? kv.disk_chunks + ' chunks on disk (' + size(kv.disk_bytes) + '), ' + ram : "
    "ram;\n"
    "}\n"
    "function row(job) {\n"
    "  const tr = document.createElement('tr');\n"
    "  for (const text of [job.client, job.state, (job.processed || 0) + ' of ' +\n"
    "      (job.prompt_tokens || 0) + ' read', (job.generated || 0) + ' said',\n"
    "      (job.tok_s || 0) + ' tokens/s'])\n"
    "    tr.appendChild(document.createElement('td')).textContent = text;\n"
    "  return tr;\n"
    "}\n"
    "async function refresh() {\n"
    "  try {\n"
    "    const answer = await fetch('/status');\n"
    "    if (!answer.ok) throw new Error('HTTP ' + answer.status);\n"
    "    const s = await answer.json();\n"
    "    const busy = s.slots.filter(x => x.state !== 'idle' && x.state !== 'free');\n"
    "    if (s.model) put('model', s.model);\n"
    "    if (s.ctx) put('context', s.ctx + ' tokens');\n"
    "    put('uptime', time(s.uptime));\n"
    "    put('slots', busy.length + ' of ' + s.slots.length + ' at work');\n"
    "    put('queue', s.queue.length + ' waiting');\n"
    "    if (s.kv) put('kept', kept(s.kv));\n"
    "    document.getElementById('jobs').replaceChildren(...busy.map(row));\n"
    "    put('state', '');\n"
    "  } catch (e) { put('state', 'The server does not answer: ' + e.message); }\n"
    "}\n"
    "setInterval(refresh, 2000);\n"
    "refresh();\n"
    "</script>\n";

static void begin_row(Bytes *out, const char *title, const char *id)
{
    bytes_printf(out, "<tr><th>%s</th><td id=\"%s\">", title, id);
}

static void end_row(Bytes *out) { bytes_str(out, "</td></tr>\n"); }

static void put_uptime(Bytes *out, double uptime)
{
    long long s = uptime > 0 ? (long long)uptime : 0, m = s / 60, h = m / 60, d = h / 24;
    if (d)
        bytes_printf(out, "%lld d %lld h", d, h % 24);
    else if (h)
        bytes_printf(out, "%lld h %lld min", h, m % 60);
    else
        bytes_printf(out, "%lld %s", m ? m : s, m ? "min" : "s");
}

/* A text that the script leaves alone; NULL: no row. */
static void put_fact(Bytes *out, const char *title, const char *id, const char *text)
{
    if (!text)
        return;
    begin_row(out, title, id);
    put_html(out, text);
    end_row(out);
}

void page_write(Bytes *out, const ServerInfo *s, const PageStatus *p)
{
    bytes_str(out, head);
    bytes_str(out, "<h1>ds4</h1>\n<table>\n");
    put_fact(out, "Model", "model", s->model ? s->model : "");
    put_fact(out, "Engine", "engine", p->quant);
    put_fact(out, "Build", "build", p->build);
    begin_row(out, "Context", "context");
    if (s->context)
        bytes_printf(out, "%d tokens", s->context);
    else
        bytes_str(out, "still loading");
    end_row(out);
    begin_row(out, "Up for", "uptime");
    put_uptime(out, p->uptime);
    end_row(out);
    begin_row(out, "Slots", "slots");
    bytes_printf(out, "%d of %d at work", p->busy, p->slots);
    end_row(out);
    begin_row(out, "Queue", "queue");
    bytes_printf(out, "%d waiting", p->queued);
    end_row(out);
    put_fact(out, "Kept", "kept", p->kept);
    bytes_str(out, "</table>\n<table id=\"jobs\"></table>\n<p id=\"state\"></p>\n"
                   "<p>See <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>, "
                   "<a href=\"/v1/models\">/v1/models</a>.</p>\n");
    bytes_str(out, script);
    bytes_str(out, "</body></html>\n");
}
