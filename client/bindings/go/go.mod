module kith

go 1.19
