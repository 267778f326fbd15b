/* utf8.h - moved to src/base. */
#include "../base/utf8.h"
