# CUDA: where it is, and which form of it a program links. A library says with lt_cuda() what it has for CUDA, and three
# others come of it, which define the same functions:
#   NAME_cuda    nvcc's, with NVIDIA's libraries: every program of a build with LONGTAKE_CUDA
#   NAME_absent  a refusal in words: every program of a build without
#   NAME_cuemu   the same sources as C++, executed on the CPU by tests/cuemu: targets with the property LT_EMULATED
# Whoever links NAME gets exactly one of them. Nothing else in the tree asks whether CUDA is there.
include(CheckLanguage)

set(LONGTAKE_CUDA AUTO CACHE STRING "build the CUDA backend: ON, OFF, or AUTO: where all it needs is found")
set_property(CACHE LONGTAKE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LONGTAKE_CUDA_CODE "" CACHE STRING "what nvcc makes: 'sm_89,compute_80' …; empty: every architecture and PTX")

# An installation has include/, lib64/ or lib/, bin/: what is named, what a package or NVIDIA's installer left, what
# ./farm cuda unpacks. CMAKE_PREFIX_PATH may name more.
set(cuda_hints ENV CUDA_HOME ENV CUDA_PATH)
set(cuda_paths /usr/local/cuda /opt/cuda /usr/lib/cuda)
foreach(folder IN ITEMS compiler/nvidia/cu13 libraries/nvidia/cu13 libraries/nvidia/nccl headers/nvidia/cu13)
    list(APPEND cuda_paths ${CMAKE_SOURCE_DIR}/build-cuda-${folder})
endforeach()
find_program(LT_NVCC nvcc HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES bin)
if(LT_NVCC)
    file(REAL_PATH ${LT_NVCC} nvcc)
    cmake_path(GET nvcc PARENT_PATH nvcc)
    list(APPEND cuda_hints ${nvcc}/..)
endif()
find_path(LT_CUDA_INCLUDE cuda_runtime.h HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES include)
find_path(LT_CUBLAS_INCLUDE cublas_v2.h HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES include)
find_path(LT_NCCL_INCLUDE nccl.h HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES include)

# -- NVIDIA's own ------------------------------------------------------------------------------------------------------

set(LT_CUDA OFF)
if(LONGTAKE_CUDA STREQUAL "AUTO" OR LONGTAKE_CUDA)
    # Libraries of wheels have names with a version only.
    set(suffixes lib64 lib lib/x86_64-linux-gnu lib/aarch64-linux-gnu)
    find_library(LT_CUDART NAMES cudart libcudart.so.13 libcudart.so.12
                 HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES ${suffixes})
    find_library(LT_CUBLAS NAMES cublas libcublas.so.13 libcublas.so.12
                 HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES ${suffixes})
    find_library(LT_NCCL NAMES nccl libnccl.so.2
                 HINTS ${cuda_hints} PATHS ${cuda_paths} PATH_SUFFIXES ${suffixes})
    set(missing "")
    foreach(part IN ITEMS "LT_NVCC=nvcc" "LT_CUDA_INCLUDE=cuda_runtime.h" "LT_CUDART=libcudart"
            "LT_CUBLAS_INCLUDE=cublas_v2.h" "LT_CUBLAS=libcublas" "LT_NCCL_INCLUDE=nccl.h" "LT_NCCL=libnccl")
        string(REGEX MATCH "^([A-Z_]+)=(.+)" part "${part}")
        if(NOT ${CMAKE_MATCH_1})
            list(APPEND missing ${CMAKE_MATCH_2})
        endif()
    endforeach()
    list(JOIN missing ", " missing)
    if(NOT missing)
        set(LT_CUDA ON)
    elseif(LONGTAKE_CUDA STREQUAL "AUTO")
        message(STATUS "CUDA: built without, missing: ${missing} (docs/gpu.md)")
    else()
        message(FATAL_ERROR "LONGTAKE_CUDA=ON, missing: ${missing} (docs/gpu.md, \"To build for a GPU\")")
    endif()
else()
    message(STATUS "CUDA: built without, LONGTAKE_CUDA=OFF")
endif()

# PTX of the oldest architecture is what every card's machine code is made of, and goes along for cards to come: one
# pass of the compiler, and the same instructions everywhere (tests/house/ptxas.sh reads what ptxas makes of them).
if(LT_CUDA)
    set(CMAKE_CUDA_COMPILER ${LT_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    set(CMAKE_CUDA_RUNTIME_LIBRARY None) # lt_toolkit has the shared one
    cmake_path(GET LT_CUDART PARENT_PATH folder)
    string(APPEND CMAKE_CUDA_FLAGS " -L${folder}") # CMake tries to link; nvcc looks into lib64, wheels have lib
    enable_language(CUDA)
    list(REMOVE_ITEM CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES ${folder}) # they get no rpath
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
        message(FATAL_ERROR "CUDA ${CMAKE_CUDA_COMPILER_VERSION} in ${LT_NVCC}: 12.4 or later is needed")
    endif()
    set(code ${LONGTAKE_CUDA_CODE})
    if(NOT code)
        set(code compute_80,sm_80,sm_86,sm_89,sm_90)
        if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
            string(APPEND code ,sm_100,sm_120)
        endif()
    endif()
    add_library(lt_toolkit INTERFACE)
    target_include_directories(lt_toolkit SYSTEM INTERFACE ${LT_CUDA_INCLUDE} ${LT_CUBLAS_INCLUDE} ${LT_NCCL_INCLUDE})
    target_link_libraries(lt_toolkit INTERFACE ${LT_NCCL} ${LT_CUBLAS} ${LT_CUDART})
    target_compile_options(lt_toolkit INTERFACE
        "$<$<COMPILE_LANGUAGE:CUDA>:-gencode;arch=compute_80,code=[${code}];-fmad=false;-Xcompiler=-Wall,-Wextra>"
        "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${LT_WERROR}>>:-Werror;all-warnings>")
    message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION} for ${code}; ${LT_CUBLAS}, ${LT_NCCL}")
endif()

# -- the emulator ------------------------------------------------------------------------------------------------------

# It takes types and prototypes from NVIDIA's headers, and for cuBLAS and NCCL, whose headers come with libraries of a
# gigabyte, from its own where those are missing. Nothing else in the tree needs C++.
set(LT_EMULATED OFF)
check_language(CXX)
if(LT_FUZZ)
    message(STATUS "CUDA emulation: not in the fuzz build")
elseif(NOT LT_CUDA_INCLUDE)
    message(STATUS "CUDA emulation: skipped, no cuda_runtime.h found (./farm cuda-headers, docs/gpu.md)")
elseif(NOT CMAKE_CXX_COMPILER)
    message(STATUS "CUDA emulation: skipped, no C++ compiler found")
else()
    set(LT_EMULATED ON)
    enable_language(CXX)
    set(CMAKE_CXX_STANDARD 17)
    set(CMAKE_CXX_STANDARD_REQUIRED ON)
    message(STATUS "CUDA emulation: with the headers in ${LT_CUDA_INCLUDE}")
endif()
set(own_headers ${CMAKE_SOURCE_DIR}/tests/cuemu/include)
set(LT_EMULATED_INCLUDE ${LT_CUDA_INCLUDE}
    $<IF:$<BOOL:${LT_CUBLAS_INCLUDE}>,${LT_CUBLAS_INCLUDE},${own_headers}>
    $<IF:$<BOOL:${LT_NCCL_INCLUDE}>,${LT_NCCL_INCLUDE},${own_headers}>)

# -- the functions -----------------------------------------------------------------------------------------------------

# lt_cuda(lt_kernels SOURCES a.cu b.c … ABSENT stub.c): what `library` calls of CUDA is defined by SOURCES or by ABSENT.
function(lt_cuda library)
    cmake_parse_arguments(ARG "" "" "SOURCES;ABSENT" ${ARGN})
    if(LT_CUDA)
        set(form ${library}_cuda)
        add_library(${form} STATIC ${ARG_SOURCES})
        target_link_libraries(${form} PUBLIC ${library} lt_toolkit)
    else()
        set(form ${library}_absent)
        add_library(${form} STATIC ${ARG_ABSENT})
        target_link_libraries(${form} PUBLIC ${library})
    endif()
    target_link_libraries(${library} INTERFACE
        $<IF:$<BOOL:$<TARGET_PROPERTY:LT_EMULATED>>,${library}_cuemu,${form}>)
    list(TRANSFORM ARG_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    set_target_properties(${library} PROPERTIES LT_CUDA_SOURCES "${ARG_SOURCES}")
endfunction()

# lt_emulated(TARGET a.cu b.cu …): the target's .cu files are C++ here, and run on the emulator.
function(lt_emulated target)
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++;-Wno-unknown-pragmas")
    target_link_libraries(${target} PUBLIC lt_cuemu)
endfunction()

# lt_emulated_test(cuemu/faults_test LINK … LABELS …): as lt_test, from tests/cuemu/faults_test.cu
function(lt_emulated_test path)
    cmake_parse_arguments(ARG "" "" "LINK;LABELS" ${ARGN})
    string(REPLACE "/" "-" name ${path})
    add_executable(${name} ${CMAKE_SOURCE_DIR}/tests/${path}.cu)
    lt_emulated(${name} ${CMAKE_SOURCE_DIR}/tests/${path}.cu)
    target_link_libraries(${name} PRIVATE ${ARG_LINK} cmocka)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" SKIP_RETURN_CODE 77 TIMEOUT 120)
endfunction()

# lt_cuda_test(worker/device_cuda_test LINK lt_worker LABELS …): as lt_test, with `cuda` among the labels, and with the
# emulated backend behind lt_worker and lt_kernels. Where there is no emulator there is no such test.
function(lt_cuda_test path)
    if(NOT LT_EMULATED)
        return()
    endif()
    cmake_parse_arguments(ARG "" "TIMEOUT" "LINK;LABELS;ARGS" ${ARGN})
    string(REPLACE "/" "-" name ${path})
    lt_test(${path} LINK ${ARG_LINK} LABELS "${ARG_LABELS};cuda" ARGS ${ARG_ARGS} TIMEOUT ${ARG_TIMEOUT})
    set_target_properties(${name} PROPERTIES LT_EMULATED ON)
endfunction()
