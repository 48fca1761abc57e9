#!/bin/sh
cp /tmp/w2/apt/*orig* $3; echo $3/*orig*
