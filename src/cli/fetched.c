/* fetched.c - files of one line below the user's XDG folders. */
#include "fetched.h"
#include "../base/file.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* $VARIABLE/NAME, or ~/FALLBACK/NAME. */
static bool xdg(char out[FETCHED_PATH], const char *variable, const char *fallback,
                const char *name)
{
    const char *folder = getenv(variable), *home = getenv("HOME");
    int n = -1;
    if (folder && folder[0] == '/')
        n = snprintf(out, FETCHED_PATH, "%s/%s", folder, name);
    else if (home && home[0] == '/')
        n = snprintf(out, FETCHED_PATH, "%s/%s/%s", home, fallback, name);
    return n > 0 && n < FETCHED_PATH;
}

/* The first line of a file, without blanks around it. */
static bool first_line(char out[FETCHED_PATH], const char *path)
{
    Bytes text = { 0 };
    size_t n = 0, from = 0;
    bool ok = file_read(&text, path, 65536, NULL);
    while (ok && from < text.n && text.p[from] == ' ')
        from++;
    while (ok && from + n < text.n && (unsigned char)text.p[from + n] >= ' ')
        n++;
    while (n && text.p[from + n - 1] == ' ')
        n--;
    ok = n > 0 && n < FETCHED_PATH;
    if (ok) {
        memcpy(out, text.p + from, n);
        out[n] = '\0';
    }
    bytes_release(&text);
    return ok;
}

bool fetched_folder(char out[FETCHED_PATH])
{
    return xdg(out, "XDG_DATA_HOME", ".local/share", "ds4");
}

static bool last_file(char out[FETCHED_PATH])
{
    return xdg(out, "XDG_DATA_HOME", ".local/share", "ds4/last");
}

bool fetched_remember(const char *path, ds4_err *err)
{
    char note[FETCHED_PATH], whole[PATH_MAX];
    File f = { 0 };
    if (!realpath(path, whole) || strlen(whole) >= FETCHED_PATH)
        return fail(err, DS4_EIO, "%s has no path that can be remembered", path);
    if (!last_file(note))
        return fail(err, DS4_EIO, "neither XDG_DATA_HOME nor HOME names a folder");
    bool ok = file_make_folders(note, err) && file_create(&f, note, err) &&
              file_write(&f, whole, strlen(whole), err) && file_write(&f, "\n", 1, err) &&
              file_commit(&f, err);
    file_release(&f);
    return ok;
}

bool fetched_last(char out[FETCHED_PATH])
{
    char note[FETCHED_PATH];
    return last_file(note) && first_line(out, note) && access(out, R_OK) == 0;
}

bool fetched_mirror(char out[FETCHED_PATH], char from[FETCHED_PATH])
{
    return xdg(from, "XDG_CONFIG_HOME", ".config", "ds4/mirror") && first_line(out, from);
}
