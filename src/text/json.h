/* json.h - moved to src/json. */
#include "../json/json.h"
