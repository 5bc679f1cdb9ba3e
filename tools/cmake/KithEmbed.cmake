# A file as a C array: cmake -DINPUT=file -DOUTPUT=file.c -DNAME=symbol -P KithEmbed.cmake
file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
file(WRITE "${OUTPUT}" "#include <stddef.h>\n"
    "extern const char ${NAME}[];\nextern const size_t ${NAME}_size;\n"
    "const char ${NAME}[] = { ${bytes} };\nconst size_t ${NAME}_size = ${size};\n")
