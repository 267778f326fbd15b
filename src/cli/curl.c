/* curl.c - the few functions of libcurl that are used, by name. */
#include "curl.h"
#include <dlfcn.h>

#ifdef __APPLE__
static const char library[] = "libcurl.4.dylib";
#else
static const char library[] = "libcurl.so.4";
#endif

/* A pointer to data becomes one to a function: POSIX allows it, C has no word for it. */
static bool find(void *lib, const char *name, void *function, ds4_err *err)
{
    void *at = dlsym(lib, name);
    memcpy(function, &at, sizeof at);
    return at || fail(err, DS4_EIO, "%s has no %s", library, name);
}

/* It stays loaded until the program ends. */
bool curl_load(Curl *c, ds4_err *err)
{
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return fail(err, DS4_EIO, "downloading needs libcurl, and %s", dlerror());
    return find(lib, "curl_global_init", &c->global_init, err) &&
           find(lib, "curl_easy_init", &c->easy_init, err) &&
           find(lib, "curl_easy_setopt", &c->setopt, err) &&
           find(lib, "curl_easy_perform", &c->perform, err) &&
           find(lib, "curl_slist_append", &c->append, err) &&
           find(lib, "curl_slist_free_all", &c->free_list, err) &&
           find(lib, "curl_easy_cleanup", &c->cleanup, err) &&
           find(lib, "curl_easy_strerror", &c->text, err) &&
           (c->global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ||
            fail(err, DS4_EIO, "%s does not start", library));
}
