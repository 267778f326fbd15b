/* Recipes on the published shape give the published files, tensor by tensor. */
#include "../../src/base/file.h"
#include "../../src/quantize/plan.h"
#include "../../src/quantize/synth.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void flash_plan(Plan *p, const char *recipe)
{
    Shape s;
    ds4_err err;
    const Recipe *r = recipe_find(recipe, &err);
    assert_non_null(r);
    assert_true(synth_shape(&s, "flash", 0, &err));
    assert_true(plan_make(p, &s, r, NULL, &err));
}

/* The list between its comment lines; *total from the last one. */
static void read_list(const char *path, Bytes *lines, unsigned long long *n,
                      unsigned long long *total)
{
    Bytes text = { 0 };
    ds4_err err;
    assert_true(file_read(&text, path, 1 << 20, &err));
    bytes_byte(&text, 0);
    *n = *total = 0;
    for (char *line = text.p, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        if (*line != '#')
            bytes_put(lines, line, (size_t)(end - line + 1));
        else
            sscanf(line, "#total tensors %llu bytes %llu", n, total);
    }
    bytes_release(&text);
}

static void compare(const char *recipe, const char *path)
{
    Plan p;
    Bytes want = { 0 }, is = { 0 };
    unsigned long long n, total;
    read_list(path, &want, &n, &total);
    flash_plan(&p, recipe);
    plan_list(&p, &is);
    assert_int_equal(n, 1328);
    assert_int_equal(p.n, n);
    assert_int_equal(p.bytes, total);
    assert_int_equal(is.n, want.n);
    assert_memory_equal(is.p, want.p, is.n);
    plan_release(&p);
    bytes_release(&want);
    bytes_release(&is);
}

static void q2_is_the_published_list(void **state)
{
    (void)state;
    compare("q2", "tests/data/gguf_tensors_q2.tsv");
}

static void q4_is_the_published_list(void **state)
{
    (void)state;
    compare("q4", "tests/data/gguf_tensors_q4.tsv");
}

static void q2_q4_is_the_published_list(void **state)
{
    (void)state;
    compare("q2-q4", "tests/data/gguf_tensors_q2q4_l37_42.tsv");
}

static void mxfp4_has_the_published_size(void **state)
{
    (void)state;
    Plan p;
    flash_plan(&p, "mxfp4");
    assert_int_equal(p.bytes, 155971123548);
    plan_release(&p);
}

static void plain_recipes_have_one_format_for_matrices(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int type;
    } all[] = { { "f32", QUANT_F32 }, { "bf16", QUANT_BF16 } };
    for (size_t k = 0; k < COUNT(all); k++) {
        Plan p;
        flash_plan(&p, all[k].name);
        for (size_t i = 0; i < p.n; i++) {
            const PlanTensor *t = &p.tensor[i];
            int want = t->spec.kind == KIND_ROUTE_HASH ? QUANT_I32
                       : t->spec.n_dims == 1           ? QUANT_F32
                                                       : all[k].type;
            assert_int_equal(t->type, want);
        }
        plan_release(&p);
    }
}

static void rows_that_do_not_fit_a_block_fall_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t row;
        int type;
    } all[] = {
        { 512, QUANT_IQ2_XXS }, { 256, QUANT_IQ2_XXS }, { 128, QUANT_Q8_0 },
        { 96, QUANT_Q8_0 },     { 80, QUANT_F16 },      { 1, QUANT_F16 },
    };
    ds4_err err;
    for (size_t i = 0; i < COUNT(all); i++) {
        TensorSpec t = { .name = "blk.1.ffn_up_exps.weight",
                         .layer = 1,
                         .n_dims = 3,
                         .dims = { all[i].row, 4, 2 } };
        int wanted;
        assert_int_equal(recipe_type(recipe_find("q2", &err), &t, 4, &wanted), all[i].type);
        assert_int_equal(wanted, QUANT_IQ2_XXS);
    }
}

static void every_recipe_is_found_by_its_name(void **state)
{
    (void)state;
    ds4_err err;
    size_t n = 0;
    for (; recipe_at(n); n++)
        assert_ptr_equal(recipe_find(recipe_at(n)->name, &err), recipe_at(n));
    assert_int_equal(n, 7);
    assert_null(recipe_find("q3", &err));
    assert_non_null(strstr(err.msg, "no recipe q3: it is one of f32 bf16 q8 q4 q2-q4 q2 mxfp4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q2_is_the_published_list),
        cmocka_unit_test(q4_is_the_published_list),
        cmocka_unit_test(q2_q4_is_the_published_list),
        cmocka_unit_test(mxfp4_has_the_published_size),
        cmocka_unit_test(plain_recipes_have_one_format_for_matrices),
        cmocka_unit_test(rows_that_do_not_fit_a_block_fall_back),
        cmocka_unit_test(every_recipe_is_found_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
