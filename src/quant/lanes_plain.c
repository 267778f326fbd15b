/* lanes_plain.c - for any CPU. */
#define LANES_NAME  "plain"
#define LANES_TABLE lanes_plain
#include "lanes_body.h"
