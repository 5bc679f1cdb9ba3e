# Debian packages by CPack: what goes into which. Texts and scripts are in tools/package.
#
#   cmake --preset package && cmake --build --preset package && cpack --preset package
#
# The build has to be configured with CMAKE_INSTALL_PREFIX=/usr: units and scripts name programs where they will be.

set(package_dir "${PROJECT_SOURCE_DIR}/tools/package")
set(KITH_PACKAGE_RELEASE 1 CACHE STRING "Revision of the Debian packages: 1 in 0.1.0-1")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME kith)
set(CPACK_PACKAGE_VENDOR "The Kith project")
set(KITH_PACKAGE_MAINTAINER "Kith maintainers <maintainers@kith.invalid>" CACHE STRING
    "Who answers for the Debian packages: Name <address>")
set(CPACK_PACKAGE_CONTACT "${KITH_PACKAGE_MAINTAINER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
# What is Debian's alone happens between installing and packing: /etc, compressed pages, copyright, changelogs.
set(CPACK_PRE_BUILD_SCRIPTS "${PROJECT_SOURCE_DIR}/tools/cmake/KithPackageTree.cmake")
set(CPACK_KITH_PACKAGE_DIR "${package_dir}")
set(CPACK_KITH_CHANGELOG "${PROJECT_SOURCE_DIR}/CHANGELOG.md")

set(CPACK_COMPONENTS_ALL library development)
if(KITH_SERVER)
    list(APPEND CPACK_COMPONENTS_ALL server)
endif()
if(KITH_GATEWAY)
    list(APPEND CPACK_COMPONENTS_ALL gateway)
endif()
if(KITH_TOOLS)
    list(APPEND CPACK_COMPONENTS_ALL tools)
endif()
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE "${KITH_PACKAGE_RELEASE}")
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(version "${PROJECT_VERSION}-${KITH_PACKAGE_RELEASE}")

# The description of a package: its first line is the summary, the rest the text, from tools/package/<component>.txt.
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
    string(TOUPPER ${component} COMPONENT)
    file(READ "${package_dir}/${component}.txt" text)
    string(REGEX MATCH "^([^\n]*)\n(.*)\n$" text "${text}")
    set(CPACK_COMPONENT_${COMPONENT}_DESCRIPTION "${CMAKE_MATCH_1}\n${CMAKE_MATCH_2}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${package_dir}/${component}.txt")
    set(scripts "${package_dir}/${component}")
    file(GLOB control LIST_DIRECTORIES OFF "${scripts}/*")
    set(CPACK_DEBIAN_${COMPONENT}_PACKAGE_CONTROL_EXTRA "${control}")
endforeach()

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libkith0)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA})
# Programs that were built with it want this version or a later one of the same soname; shlibs for all of it, symbols for each.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libkith-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libkith0 (= ${version})")

set(CPACK_DEBIAN_SERVER_PACKAGE_NAME kith-server)
set(CPACK_DEBIAN_SERVER_PACKAGE_SECTION database)
set(CPACK_DEBIAN_SERVER_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_SERVER_PACKAGE_RECOMMENDS kith-tools)

# Which segments a program reads changes with a version: they come from one.
set(CPACK_DEBIAN_GATEWAY_PACKAGE_NAME kith-gateway)
set(CPACK_DEBIAN_GATEWAY_PACKAGE_SECTION net)
set(CPACK_DEBIAN_GATEWAY_PACKAGE_DEPENDS "adduser, kith-server (= ${version})")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME kith-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION database)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SUGGESTS kith-server)

include(CPack)
