" Vim syntax for gdsl: copy to ~/.vim/syntax/, and `autocmd BufRead,BufNewFile *.gdsl set filetype=gdsl`.
if exists("b:current_syntax")
  finish
endif

syn keyword gdslLayer layer
syn keyword gdslDeclare param const buffer global graph node source target edge module linear mlp use from nodes
syn keyword gdslRule message aggregate update pool return
syn keyword gdslDefine def reduce init
syn keyword gdslControl for in if else
syn keyword gdslWord at by over and or not
syn keyword gdslConstant true false none inf pi
syn keyword gdslKind int float bool
syn match gdslCall "\<[A-Za-z_][A-Za-z0-9_]*\ze\s*\%(\[[^]]*\]\)\?("
syn match gdslEnd "\[\zs[ijg]\ze\]"
syn match gdslNumber "\<\d\+\%(\.\d\+\)\?\%([eE][+-]\?\d\+\)\?\>"
syn match gdslOperator "\*\*\|\.\.\|->\|[-+*/@<>=!~]=\?"
syn region gdslString start=+"+ end=+"+ oneline
syn match gdslComment "#.*$" contains=@Spell

hi def link gdslLayer Structure
hi def link gdslDeclare StorageClass
hi def link gdslRule Statement
hi def link gdslDefine Define
hi def link gdslControl Repeat
hi def link gdslWord Operator
hi def link gdslConstant Constant
hi def link gdslKind Type
hi def link gdslCall Function
hi def link gdslEnd Special
hi def link gdslNumber Number
hi def link gdslOperator Operator
hi def link gdslString String
hi def link gdslComment Comment

let b:current_syntax = "gdsl"
