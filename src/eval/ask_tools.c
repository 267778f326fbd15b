/* ask_tools.c - requests that one tool fits, two calls, or none. */
#include "questions_parts.h"

/* In the form that a prompt shows: json.h's. */
#define FUNCTION(json) \
    { \
        json, sizeof(json) - 1 \
    }

static const Str functions[] = {
    FUNCTION("{\"name\": \"get_weather\", \"description\": \"Get the weather in a city.\", "
             "\"parameters\": "
             "{\"type\": \"object\", \"properties\": {\"location\": {\"type\": \"string\", "
             "\"description\": "
             "\"The name of the city\"}}, \"required\": [\"location\"]}}"),
    FUNCTION(
        "{\"name\": \"create_ticket\", \"description\": \"Create a ticket.\", \"parameters\": "
        "{\"type\": "
        "\"object\", \"properties\": {\"title\": {\"type\": \"string\", \"description\": \"Title "
        "of the "
        "ticket\"}, \"priority\": {\"type\": \"integer\", \"description\": \"1 is the highest\", "
        "\"minimum\": 1, \"maximum\": 5}, \"urgent\": {\"type\": \"boolean\", \"description\": "
        "\"True if "
        "it is urgent\"}}, \"required\": [\"title\", \"priority\"]}}"),
    FUNCTION(
        "{\"name\": \"set_timer\", \"description\": \"Start a timer.\", \"parameters\": {\"type\": "
        "\"object\", \"properties\": {\"minutes\": {\"type\": \"number\", \"description\": "
        "\"Minutes "
        "until it rings\"}, \"label\": {\"type\": \"string\", \"description\": \"What it is "
        "for\"}}, "
        "\"required\": [\"minutes\"]}}"),
    FUNCTION(
        "{\"name\": \"send_message\", \"description\": \"Send a message to people.\", "
        "\"parameters\": "
        "{\"type\": \"object\", \"properties\": {\"to\": {\"type\": \"array\", \"items\": "
        "{\"type\": "
        "\"string\"}, \"description\": \"Names of the people\"}, \"text\": {\"type\": \"string\", "
        "\"description\": \"The message\"}}, \"required\": [\"to\", \"text\"]}}"),
    FUNCTION("{\"name\": \"set_light\", \"description\": \"Switch the light of a room.\", "
             "\"parameters\": "
             "{\"type\": \"object\", \"properties\": {\"room\": {\"type\": \"string\", "
             "\"description\": \"The "
             "room\"}, \"state\": {\"type\": \"string\", \"enum\": [\"on\", \"off\"], "
             "\"description\": \"on or "
             "off\"}}, \"required\": [\"room\", \"state\"]}}"),
};

typedef struct {
    const char *prompt;
    struct {
        const char *name, *arguments;
    } calls[2];
} Request;

static const Request requests[] = {
    { "What's the weather in Oslo?", { { "get_weather", "{\"location\": \"Oslo\"}" } } },
    { "Please tell me how the weather is in Nairobi today.",
      { { "get_weather", "{\"location\": \"Nairobi\"}" } } },
    { "Create a ticket with title broken door, priority 2 and urgent false.",
      { { "create_ticket", "{\"title\": \"broken door\", \"priority\": 2, \"urgent\": false}" } } },
    { "Create a ticket with title wet floor and priority 1.",
      { { "create_ticket", "{\"title\": \"wet floor\", \"priority\": 1}" } } },
    { "Start a timer for 12 minutes.", { { "set_timer", "{\"minutes\": 12}" } } },
    { "Start a timer of half an hour with the label pasta.",
      { { "set_timer", "{\"minutes\": 30, \"label\": \"pasta\"}" } } },
    { "Send Ada and Ben the message \"lunch at noon\".",
      { { "send_message", "{\"to\": [\"Ada\", \"Ben\"], \"text\": \"lunch at noon\"}" } } },
    { "Turn the light in the kitchen off.",
      { { "set_light", "{\"room\": \"kitchen\", \"state\": \"off\"}" } } },
    { "What's the weather in Lima, and what's the weather in Cairo?",
      { { "get_weather", "{\"location\": \"Lima\"}" },
        { "get_weather", "{\"location\": \"Cairo\"}" } } },
    { "Switch the light in the hall on and start a timer for 5 minutes.",
      { { "set_light", "{\"room\": \"hall\", \"state\": \"on\"}" },
        { "set_timer", "{\"minutes\": 5}" } } },
    { "Hello! Do not call a tool, just say hello.", { { NULL, NULL } } },
    { "What is the capital of France? You know it without a tool.", { { NULL, NULL } } },
};

const Str *questions_tools(size_t *n)
{
    *n = COUNT(functions);
    return functions;
}

void make_tools(Maker *m)
{
    for (size_t i = 0; i < COUNT(requests); i++) {
        const Request *r = &requests[i];
        ExamQuestion *q = maker_add(m, SUITE_TOOLS, GRADE_CALLS, NULL, "%s", r->prompt);
        q->tools = true;
        q->key.tools = questions_tools(&q->key.n_tools);
        for (size_t k = 0; k < COUNT(r->calls) && r->calls[k].name; k++)
            q->key.calls[q->key.n_calls++] =
                (GradeCall){ str_of(r->calls[k].name), str_of(r->calls[k].arguments) };
    }
}
