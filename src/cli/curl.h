/* curl.h - libcurl, loaded when something is downloaded.
 *
 * Linked, its thirty libraries would take 5 ms of the start of every command;
 * and who never downloads needs none of them. */
#ifndef CURL_LIB_H
#define CURL_LIB_H
#include "../base/base.h"
#include <curl/curl.h>

typedef struct {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    CURLcode (*setopt)(CURL *h, CURLoption option, ...);
    CURLcode (*perform)(CURL *h);
    struct curl_slist *(*append)(struct curl_slist *list, const char *line);
    void (*free_list)(struct curl_slist *list);
    void (*cleanup)(CURL *h);
    const char *(*text)(CURLcode code);
} Curl;

bool curl_load(Curl *c, ds4_err *err);

#endif
