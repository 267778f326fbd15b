# make               the program, build/ds4, and the libraries
# make test          all tests                   make check   format, tidy, layers, sizes
# make asan ubsan tsan   the tests again, watched make fuzz T=gguf [SECONDS=60]
# make test-clients  real clients (Claude Code, opencode, Codex, Pi, SDKs) against the server
# make check-macos   every C file, compiled for Macs
# make check-neon    the NEON kernels' tests, run under qemu
# make tools-cuda    what a GPU can do: build/cuda_limits
# make install [PREFIX=/usr/local] [DESTDIR=]
#
# One archive a layer (src/NAME -> libNAME.a), so that a test of a low layer
# needs nothing of the higher ones. B=DIR builds elsewhere.
#
# CUDA=0 leaves the GPU out, which is the default where there is no nvcc.
# CUDA_ARCH="89 90a" lists the GPUs to compile for; CUDA_ARCH=all takes minutes.

B      ?= build
CC     ?= cc
CXX    ?= c++
PREFIX ?= /usr/local
OPT    ?= -O2 -g
WERROR ?= -Werror
PKG    ?= pkg-config
SAN    ?=

OS   := $(shell uname -s)
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes $(WERROR)
# Contraction would let the compiler choose where to round: results must not
# depend on the compiler.
BASE_FLAGS = -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIC -pthread -ffp-contract=off -MMD -MP
PACKAGES := libpcre2-8 json-c libxxhash libevent_core libcrypto
ifeq ($(OS),Darwin)
SYSTEM_LIBS := -ledit
else
PACKAGES += libedit
endif
# Its headers only: see src/cli/curl.h. (macOS has them, but no description.)
LOADED := $(if $(filter-out Darwin,$(OS)),libcurl)
LIBS_NEEDED := $(shell for p in $(PACKAGES) $(LOADED); do $(PKG) --exists $$p || echo $$p; done)
ifneq ($(LIBS_NEEDED),)
NO_LIBS := clean help check-format check-layers check-sizes check-macos check-neon
ifneq ($(or $(filter-out $(NO_LIBS),$(MAKECMDGOALS)),$(if $(MAKECMDGOALS),,all)),)
$(error missing: $(LIBS_NEEDED). Run ./bootstrap setup, which installs them)
endif
endif
# ---- CUDA, where nvcc is ------------------------------------------------------

ifeq ($(origin NVCC),undefined)
NVCC := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
endif
# Not on Macs, and not where a sanitizer watches.
CUDA ?= $(if $(NVCC),$(if $(SAN)$(filter-out Linux,$(OS)),0,1),0)
ifeq ($(CUDA),1)
CUDA_HOME ?= $(abspath $(dir $(realpath $(NVCC)))..)
CUDA_LIB  ?= $(CUDA_HOME)/lib64
# The GPUs that are here, else Hopper. Any other one translates the PTX of 8.0 when it first
# runs, a minute once; "all" is for machines that are not known: machine code for each.
ifneq ($(wildcard /proc/driver/nvidia/gpus/*),)
CUDA_HERE := $(patsubst 90,90a,$(sort $(subst .,,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null))))
endif
CUDA_ARCH ?= $(or $(CUDA_HERE),90a)
CUDA_CODE := $(if $(filter all,$(CUDA_ARCH)),80 89 90a 100 120,$(CUDA_ARCH))
CUDA_PTX  := $(if $(filter all,$(CUDA_ARCH)),120,80)
CUDA_GENCODE := $(foreach a,$(CUDA_CODE),-gencode arch=compute_$a,code=sm_$a) \
                $(foreach a,$(CUDA_PTX),-gencode arch=compute_$a,code=compute_$a)
# A fifth of the size, where nvcc knows how.
NVCC_SMALL := $(if $(shell $(NVCC) --help | grep -e --compress-mode),--compress-mode=size)
NVCC_FLAGS = -std=c++17 -O3 -lineinfo $(NVCC_SMALL) $(CUDA_GENCODE) -MMD -MP \
             -Xcompiler -fPIC,-Wall,-Wextra,-Wno-unused-parameter,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics \
             $(if $(WERROR),-Werror all-warnings)
# cuBLASLt is loaded when it is needed: see src/backend/cuda/lt.cu.
CUDA_LIBS = -L$(CUDA_LIB) -Wl,-rpath,$(CUDA_LIB) -lcudart_static -ldl -lrt -lpthread
else ifneq ($(CUDA),0)
$(error CUDA=$(CUDA): it is 1 or 0)
endif

# As system headers, whose macros may offend our warnings.
as_system = $(patsubst -I%,-isystem%,$(1))
PKG_CFLAGS := $(call as_system,$(shell $(PKG) --cflags $(PACKAGES) $(LOADED) 2>/dev/null))
PKG_LIBS   := $(shell $(PKG) --libs $(PACKAGES) 2>/dev/null)
ALL_CFLAGS = $(BASE_FLAGS) $(WARN) $(OPT) $(SAN) $(PKG_CFLAGS) $(CFLAGS)
ALL_LIBS   = $(SAN) $(PKG_LIBS) $(SYSTEM_LIBS) -lm -pthread $(LDFLAGS)

# ---- sources, lowest layer first; includes may only point to the left --------

LAYERS := base json quant gguf text ops backend/cpu backend/cuda backend model engine store quantize server eval cli
ENGINE_LAYERS := base json quant gguf text ops backend/cpu backend/cuda backend model engine
kernel_files_x86_64  := k_avx2 k_avx2_i8 k_avx2_index k_avx512 k_avx512_acts k_avx512_vbmi k_avx512_vnni k_avx512_q2k k_avx512_iq2 \
                        k_avx512_index
# Compilers know AVX-VNNI since gcc 11 and clang 12.
knows_avx_vnni := $(shell echo | $(CC) -mavxvnni -E - >/dev/null 2>&1 && echo yes)
kernel_files_x86_64  += $(if $(knows_avx_vnni),k_avx_vnni k_avx_vnni_index)
kernel_files_aarch64 := k_neon k_neon_i8 k_neon_dot
kernel_files_arm64   := $(kernel_files_aarch64)
all_kernels := $(kernel_files_x86_64) $(kernel_files_aarch64) k_avx_vnni k_avx_vnni_index
other_kernels := $(filter-out $(kernel_files_$(ARCH)),$(all_kernels))

layer_src = $(filter-out $(foreach k,$(other_kernels),src/backend/cpu/$k.c),$(wildcard src/$(1)/*.c))
layer_obj = $(patsubst src/%.c,$(B)/obj/%.o,$(call layer_src,$(1)))
ifeq ($(CUDA),1)
layer_src = $(filter-out $(foreach k,$(other_kernels),src/backend/cpu/$k.c) src/backend/cuda/none.c,$(wildcard src/$(1)/*.c))
layer_obj = $(patsubst src/%.c,$(B)/obj/%.o,$(call layer_src,$(1))) $(patsubst src/%.cu,$(B)/obj/%.cu.o,$(wildcard src/$(1)/*.cu))
endif
layer_lib = $(B)/lib/$(subst /,-,$(1)).a

.PHONY: all tests tools-cuda test test-clients check asan ubsan tsan fuzz check-macos check-neon check-format \
        check-tidy check-layers check-sizes install clean help
.SECONDARY:
all: $(B)/ds4 $(B)/libds4.a $(B)/libds4.so $(B)/ds4.pc

# Changes when the compiler or its flags do, and then everything is built anew.
.PHONY: always
$(B)/flags: always
	@mkdir -p $(@D); echo '$(CC) $(ALL_CFLAGS) $(ALL_LIBS)' | cmp -s - $@ || \
	    echo '$(CC) $(ALL_CFLAGS) $(ALL_LIBS)' >$@

# The same for what nvcc compiles, and for there being CUDA at all.
$(B)/cuda-flags: always
	@mkdir -p $(@D); echo '$(CUDA) $(NVCC) $(NVCC_FLAGS) $(CUDA_LIBS)' | cmp -s - $@ || \
	    echo '$(CUDA) $(NVCC) $(NVCC_FLAGS) $(CUDA_LIBS)' >$@

# The same for a file that is new, moved or gone, whatever its date.
$(B)/objects: always
	@mkdir -p $(@D); echo '$(sort $(foreach l,$(LAYERS),$(call layer_obj,$l)))' | cmp -s - $@ || \
	    echo '$(sort $(foreach l,$(LAYERS),$(call layer_obj,$l)))' >$@

define layer_rule
$(call layer_lib,$(1)): $(call layer_obj,$(1)) $(B)/objects $(if $(filter backend/cuda,$(1)),$(B)/cuda-flags)
	@mkdir -p $$(@D); rm -f $$@; $$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))

# The compiler takes minutes over these two with all that UBSan can watch; what
# is left out here ASan sees as well, and tests/run makes the rest stop a test.
ifneq ($(findstring undefined,$(SAN)),)
KERNEL_SAN := -fsanitize-recover=undefined -fno-sanitize=pointer-overflow,null,object-size
endif
# Comparisons of logits in vectors: nobody looks at exceptions.
$(B)/obj/model/sampler.o: CFLAGS += -fno-trapping-math
AVX2 = -mavx2 -mfma -mf16c -mbmi2
CPU_OBJ := $(B)/obj/backend/cpu
$(CPU_OBJ)/k_avx2.o $(CPU_OBJ)/k_avx2_i8.o $(CPU_OBJ)/k_avx2_index.o: ISA = $(AVX2)
$(CPU_OBJ)/k_avx_vnni.o $(CPU_OBJ)/k_avx_vnni_index.o: ISA = $(AVX2) -mavxvnni
$(CPU_OBJ)/kernels.o: CFLAGS += $(if $(knows_avx_vnni),,-DNO_AVX_VNNI)
AVX512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl $(AVX2)
$(CPU_OBJ)/k_avx512.o $(CPU_OBJ)/k_avx512_acts.o: ISA = $(AVX512)
$(CPU_OBJ)/k_avx512_vbmi.o: ISA = $(AVX512) -mavx512vbmi
$(CPU_OBJ)/k_avx512_vnni.o $(CPU_OBJ)/k_avx512_index.o: ISA = $(AVX512) -mavx512vnni
# Unlike clang, gcc does not order instructions before it gives registers to them, unless
# asked: 12 % of what IQ2_XXS reaches with one row.
GCC_ORDER := $(if $(findstring clang,$(shell $(CC) --version)),,-fschedule-insns -fsched-pressure)
$(CPU_OBJ)/k_avx512_q2k.o: ISA = $(AVX512) -mavx512vnni $(GCC_ORDER)
$(CPU_OBJ)/k_avx512_iq2.o: ISA = $(AVX512) -mavx512vnni -mavx512vbmi -mgfni $(GCC_ORDER)
# gcc's note about how vectors are passed, in files whose functions are all static.
$(B)/obj/quant/lanes_%.o: CFLAGS += -Wno-psabi
ifeq ($(ARCH),x86_64)
$(B)/obj/quant/lanes_avx2.o:   ISA = $(AVX2)
$(B)/obj/quant/lanes_avx512.o: ISA = $(AVX512)
endif
$(CPU_OBJ)/k_neon_dot.o: ISA = -march=armv8.2-a+dotprod
$(B)/obj/%.o: src/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA) $(if $(ISA),$(KERNEL_SAN)) -c -o $@ $<

$(B)/obj/%.cu.o: src/%.cu $(B)/cuda-flags
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MF $(@:.o=.d) -c -o $@ $<

libs = $(foreach l,$(1),$(call layer_lib,$l))
# Archives refer to lower ones only, so the highest comes first.
reverse = $(if $(1),$(call reverse,$(wordlist 2,99,$(1))) $(firstword $(1)))

$(B)/ds4: $(call libs,$(LAYERS))
	$(CC) -o $@ $(call libs,$(call reverse,$(LAYERS))) $(CUDA_LIBS) $(ALL_LIBS)

# Only ds4_* is visible outside the libraries.
ENGINE_OBJ := $(foreach l,$(ENGINE_LAYERS),$(call layer_obj,$l))
ifeq ($(OS),Darwin)
$(B)/libds4.o: $(ENGINE_OBJ) $(B)/objects
	ld -r -exported_symbol '_ds4_*' -o $@ $(filter %.o,$^)
$(B)/libds4.so: $(B)/libds4.o
	$(CC) -dynamiclib -install_name @rpath/libds4.so.0 -o $@ $< $(ALL_LIBS)
else
# C++ has one copy of a function in many objects: here they are merged, too.
$(B)/libds4.o: $(ENGINE_OBJ) $(B)/objects $(B)/cuda-flags
	$(LD) -r $(if $(filter 1,$(CUDA)),--force-group-allocation) -o $@.whole $(filter %.o,$^)
	objcopy --wildcard --keep-global-symbol='ds4_*' $@.whole $@
	@rm -f $@.whole
$(B)/libds4.so: $(B)/libds4.o
	$(CC) -shared -Wl,--as-needed -Wl,-soname,libds4.so.0 -o $@ $< $(CUDA_LIBS) $(ALL_LIBS)
endif
$(B)/libds4.a: $(B)/libds4.o
	@rm -f $@; $(AR) rcs $@ $<

# What to link with either library, for pkg-config.
define ds4_pc
Name: ds4
Description: runs DeepSeek V4 Flash
Version: $(shell sed -n 's/^.define DS4_VERSION "\(.*\)"/\1/p' include/ds4.h)
Cflags: -I$(1)
Libs: -L$(2) -lds4
Libs.private: $(CUDA_LIBS) -lm -pthread
Requires.private: libpcre2-8 json-c libxxhash libcrypto
endef
export BUILT_PC     = $(call ds4_pc,$(abspath include),$(abspath $(B)))
export INSTALLED_PC = $(call ds4_pc,$(PREFIX)/include,$(PREFIX)/lib)
$(B)/ds4.pc: $(B)/cuda-flags include/ds4.h
	@mkdir -p $(@D); echo "$$BUILT_PC" >$@

# ---- tests: tests/unit/LAYER-NAME.c needs the layers up to LAYER; props, golden
# and fuzz tests need all but the commands, and gpu tests CUDA, too -------------

UNIT  := $(patsubst tests/%.c,%,$(wildcard tests/unit/*.c))
WHOLE := $(patsubst tests/%.c,%,$(wildcard tests/golden/*.c tests/props/*.c))
GPU   := $(if $(filter 1,$(CUDA)),$(patsubst tests/%.c,%,$(wildcard tests/gpu/*.c)))
FUZZ  := $(patsubst tests/%.c,%,$(filter-out tests/fuzz/replay.c,$(wildcard tests/fuzz/*.c)))
# The programs that start threads, also by way of tests/*.h.
STARTS_THREADS := pool_new|pthread_create|threads|http_site|server_stage|toy_open|store_folder|cpu_toy
THREADED := $(patsubst tests/%.c,%,$(shell grep -lE '$(STARTS_THREADS)' \
              $(wildcard tests/unit/*.c tests/props/*.c) /dev/null))
TEST_CFLAGS = $(ALL_CFLAGS) -Wno-conversion -Wno-sign-conversion $(call as_system,$(shell $(PKG) --cflags cmocka))
TEST_LIBS   = $(ALL_LIBS) $(shell $(PKG) --libs cmocka)

# The first words of list 2, as far as word 1.
upto = $(firstword $(2)) $(if $(filter $(1),$(firstword $(2))),,$(if $(2),$(call upto,$(1),$(wordlist 2,99,$(2)))))
test_layers = $(strip $(call upto,$(patsubst cpu,backend/cpu,$(firstword $(subst -, ,$(notdir $(1))))),$(LAYERS)))
WHOLE_LAYERS := $(filter-out cli,$(LAYERS))

$(B)/obj/tests/gpu/%.o: TEST_CFLAGS += -isystem $(CUDA_HOME)/include
$(B)/obj/tests/%.o: tests/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -c -o $@ $<

# test_rule NAME, LAYERS: a program of its own object, others it asks for, and the layers
define test_rule
$(B)/tests/$(1): $(B)/obj/tests/$(1).o $(3) $(call libs,$(2))
	@mkdir -p $$(@D)
	$$(CC) -o $$@ $$(filter %.o,$$^) $(call libs,$(call reverse,$(2))) $(if $(filter backend/cuda,$(2)),$$(CUDA_LIBS)) $$(TEST_LIBS)
endef
$(foreach t,$(UNIT),$(eval $(call test_rule,$t,$(call test_layers,$t))))
$(foreach t,$(WHOLE) $(GPU),$(eval $(call test_rule,$t,$(WHOLE_LAYERS))))
# The kernels of AVX-VNNI with the same instruction as AVX-512 has it, which more CPUs run.
ifeq ($(ARCH)$(knows_avx_vnni),x86_64yes)
VNNI_TWINS := $(B)/obj/tests/k_avx_vnni_twin.o $(B)/obj/tests/k_avx_vnni_index_twin.o
$(B)/obj/tests/unit/cpu-kernels-i8.o $(B)/obj/tests/unit/cpu-kernels-index.o: CFLAGS += -DHAS_VNNI_TWIN
$(B)/tests/unit/cpu-kernels-i8 $(B)/tests/unit/cpu-kernels-index: $(VNNI_TWINS)
$(VNNI_TWINS): ISA = $(AVX512) -mavx512vnni -DEIGHT_LANES
$(VNNI_TWINS): $(B)/obj/tests/%_twin.o: src/backend/cpu/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA) $(KERNEL_SAN) -Dkernels_avx_vnni=kernels_avx_vnni_twin \
	    -Dkernels_avx_vnni_index=kernels_avx_vnni_index_twin -c -o $@ $<
endif
# Fuzz targets, as programs that replay their corpus (any compiler).
$(foreach t,$(FUZZ),$(eval $(call test_rule,$t,$(WHOLE_LAYERS),$(B)/obj/tests/fuzz/replay.o)))

programs = $(foreach t,$(1),$(B)/tests/$t)
tests: $(call programs,$(UNIT) $(WHOLE) $(FUZZ) $(GPU)) $(B)/ds4 $(if $(GPU),$(B)/cuda_limits)
tests-threaded: $(call programs,$(THREADED))
.PHONY: tests-threaded

test: all tests
	tests/run $(B)

# Real clients, from npm, against the server.
test-clients: $(B)/ds4
	tests/clients/run $(B)

# Sanitizer builds have their own folders and run the tests that fit them.
WATCHED := --with "serve_load.py --short" --with serve_cancel.py --with serve_lifecycle.py \
           --with serve_retry.py --with "serve_kept.py --watched" \
           --with "serve_soak.py --watched --turns 12 --agents 4"
asan:
	$(MAKE) B=build/asan CC=clang OPT="-O1 -g -fno-omit-frame-pointer" \
	    SAN="-fsanitize=address,undefined -fno-sanitize-recover=all" tests
	tests/run --quick $(WATCHED) build/asan
ubsan:
	$(MAKE) B=build/ubsan CC=clang OPT="-O1 -g" SAN="-fsanitize=undefined -fno-sanitize-recover=all" tests
	tests/run --quick build/ubsan
tsan:
	$(MAKE) B=build/tsan CC=clang OPT="-O1 -g" SAN="-fsanitize=thread" tests-threaded build/tsan/ds4
	tests/run --quick $(WATCHED) build/tsan

# Coverage-guided fuzzing: make fuzz T=gguf SECONDS=60
SECONDS ?= 60
fuzz:
	@test -f "tests/fuzz/$(T).c" || { echo "make fuzz T=NAME, one of: $(notdir $(FUZZ))"; exit 2; }
	$(MAKE) B=build/fuzz CC=clang OPT="-O1 -g" \
	    SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" build/fuzz/fuzz-$(T)
	mkdir -p build/fuzz/corpus-$(T)
	build/fuzz/fuzz-$(T) -max_total_time=$(SECONDS) -timeout=5 -rss_limit_mb=2048 \
	    -artifact_prefix=build/fuzz/ build/fuzz/corpus-$(T) tests/fuzz/corpus/$(T)
$(B)/fuzz-%: $(B)/obj/tests/fuzz/%.o $(call libs,$(WHOLE_LAYERS))
	$(CC) -fsanitize=fuzzer -o $@ $< $(call libs,$(call reverse,$(WHOLE_LAYERS))) $(TEST_LIBS)

comma := ,
# What a GPU can do: the numbers that decide how its kernels are made.
tools-cuda: $(B)/cuda_limits
$(B)/cuda_limits: tools/cuda_limits.cu $(B)/cuda-flags
	$(NVCC) $(NVCC_FLAGS) -MF $@.d -o $@ $< -lcublasLt $(CUDA_LIBS:-Wl$(comma)%=-Xlinker %)

# What this machine can do, and what the CPU kernels reach of that.
$(B)/obj/tools/%.o: tools/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<
$(B)/limits: $(B)/obj/tools/limits.o $(B)/obj/tools/machine.o $(call libs,base)
	$(CC) -o $@ $(filter %.o,$^) $(call libs,base) $(ALL_LIBS)
$(B)/bench_kernels: $(B)/obj/tools/bench_kernels.o $(B)/obj/tools/machine.o $(call libs,base quant backend/cpu)
	$(CC) -o $@ $(filter %.o,$^) $(call libs,backend/cpu quant base) $(ALL_LIBS)
$(B)/bench_attend: $(B)/obj/tools/bench_attend.o $(B)/obj/tools/machine.o $(call libs,$(LAYERS))
	$(CC) -o $@ $(filter %.o,$^) $(call libs,$(call reverse,$(LAYERS))) $(CUDA_LIBS) $(ALL_LIBS)

# How fast the encoders are, and how well they do.
$(B)/bench_quant: tools/bench_quant.c $(call libs,base quant)
	$(CC) $(ALL_CFLAGS) -MF $@.d -o $@ $< $(call libs,quant base) $(ALL_LIBS)

# How long a session's state takes out, in and from session to session.
$(B)/bench_state: tools/bench_state.c $(call libs,$(ENGINE_LAYERS))
	$(CC) $(ALL_CFLAGS) -MF $@.d -o $@ $< $(call libs,$(call reverse,$(ENGINE_LAYERS))) $(CUDA_LIBS) $(ALL_LIBS)

# What the KV store costs with states of the real model's size.
$(B)/bench_store: tools/bench_store.c $(call libs,base store)
	$(CC) $(ALL_CFLAGS) -MF $@.d -o $@ $< $(call libs,store base) $(ALL_LIBS)

# ---- checks ---------------------------------------------------------------------

check: check-format check-layers check-sizes check-tidy
check-format:
	tools/check_format
check-tidy:
	tools/check_tidy
check-layers:
	tools/check_layers
check-sizes:
	tools/check_sizes
check-macos:
	tools/check_macos
check-neon:
	tools/check_neon

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/ds4
	install -m 755 $(B)/ds4 $(DESTDIR)$(PREFIX)/bin/ds4
	ln -sf ds4 $(DESTDIR)$(PREFIX)/bin/ds4-bench
	ln -sf ds4 $(DESTDIR)$(PREFIX)/bin/ds4-server
	ln -sf ds4 $(DESTDIR)$(PREFIX)/bin/ds4-eval
	install -m 644 $(B)/libds4.a $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(B)/libds4.so $(DESTDIR)$(PREFIX)/lib/libds4.so.0
	ln -sf libds4.so.0 $(DESTDIR)$(PREFIX)/lib/libds4.so
	install -m 644 include/ds4.h $(DESTDIR)$(PREFIX)/include/
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	echo "$$INSTALLED_PC" >$(DESTDIR)$(PREFIX)/lib/pkgconfig/ds4.pc
	install -m 644 models/ds4-tiny.gguf $(DESTDIR)$(PREFIX)/share/ds4/

clean:
	rm -rf build
help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)
