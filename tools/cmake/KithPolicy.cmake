# The Content-Security-Policy of a page with one <style> and one <script> of its own, as a C string:
# cmake -DINPUT=page.html -DOUTPUT=policy.c -DNAME=symbol -P KithPolicy.cmake
#
# Both are allowed by their hashes, so that nothing else that might come to stand in the page is; changing them needs nothing but a build.
cmake_minimum_required(VERSION 3.22)

file(READ "${INPUT}" page)

# The SHA-256 of what stands between <tag> and </tag>, in base64.
function(hash_of tag out)
    string(FIND "${page}" "<${tag}>" from)
    string(FIND "${page}" "</${tag}>" to)
    string(FIND "${page}" "<${tag}>" last REVERSE)
    if(from LESS 0 OR to LESS from OR NOT from EQUAL last)
        message(FATAL_ERROR "${INPUT} is to have one <${tag}>, without attributes")
    endif()
    string(LENGTH "<${tag}>" len)
    math(EXPR from "${from} + ${len}")
    math(EXPR len "${to} - ${from}")
    string(SUBSTRING "${page}" ${from} ${len} text)
    string(SHA256 hex "${text}")
    # Six bits at a time: 64 digits of hexadecimal are 42 letters, and one of the 4 bits that are left.
    set(letters "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    set(base64 "")
    foreach(at RANGE 0 60 3)
        string(SUBSTRING "${hex}" ${at} 3 three)
        math(EXPR high "0x${three} >> 6")
        math(EXPR low "0x${three} & 63")
        string(SUBSTRING "${letters}" ${high} 1 a)
        string(SUBSTRING "${letters}" ${low} 1 b)
        string(APPEND base64 "${a}${b}")
    endforeach()
    string(SUBSTRING "${hex}" 63 1 one)
    math(EXPR high "0x${one} << 2")
    string(SUBSTRING "${letters}" ${high} 1 a)
    set(${out} "sha256-${base64}${a}=" PARENT_SCOPE)
endfunction()

hash_of(style style)
hash_of(script script)
file(WRITE "${OUTPUT}" "extern const char ${NAME}[];\nconst char ${NAME}[] =\n"
    "    \"default-src 'none'; script-src '${script}'; style-src '${style}'; connect-src 'self'; img-src data:; \"\n"
    "    \"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'\";\n")
