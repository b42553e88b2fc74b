# Compiles the files of a target together, which takes half the time: each file alone reads the same large headers again.
function(compile_together)
  set_target_properties(llama llama-common mtmd server-context PROPERTIES UNITY_BUILD ON)
  # These have names of their own that another file of their target has too.
  set(alone_in_llama src/models/gemma4.cpp)
  set(alone_in_llama-common common/json.cpp common/chat.cpp)
  set(alone_in_mtmd tools/mtmd/mtmd-helper.cpp tools/mtmd/mtmd-helper-gen.cpp)
  foreach(target llama llama-common mtmd)
    set_source_files_properties(
      ${alone_in_${target}} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endforeach()
endfunction()
# The targets are there only once the whole project has been read.
cmake_language(DEFER CALL compile_together)
