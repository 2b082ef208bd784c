'use strict';
require('./shim').run('main');
