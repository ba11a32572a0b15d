#!/bin/sh
# wget: a page to standard output, and a form.
set -eu
wget -q -O - "$1/weather?city=Paris" | grep -q '"city":"Paris"'
wget -q -O - --post-data=hello "$1/upload" | grep -q '"received":5'
echo done
