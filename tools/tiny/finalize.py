import json, os
from collections import OrderedDict
T='./'; out=OrderedDict()
items=[]
for p in ('0','1','r0','r1'):
    if os.path.exists('build/data/ev%s.json'%p): items+=json.load(open('build/data/ev%s.json'%p))
ev=OrderedDict()
for kind in ("chat","arith","memory","tool","result","notool","recall-800","recall-3400","recall-13000"):
    for think in (False,True):
        s=[x for x in items if x['kind']==kind and x['think']==think]
        if not s: continue
        r={"n":len(s),"mean_prompt_tokens":round(sum(x['n'] for x in s)/len(s)),"exact_percent":round(100*sum(x['ok'] for x in s)/len(s),1)}
        if kind=="tool": r["well_formed_percent"]=round(100*sum(x['wf'] for x in s)/len(s),1); r["right_tool_names_percent"]=round(100*sum(x['name'] for x in s)/len(s),1)
        ev.setdefault(kind,OrderedDict())["thinking" if think else "chat"]=r
r1=json.load(open(T+'run1/small/report.json')); r2=json.load(open(T+'run2/small/report.json'))
out["greedy_generation_final_model"]=ev
out["note"]="greedy, f32, by infer.py on the CPU; exact = the whole answer (or every call with all arguments) equals the reference and EOS follows; recall-N = a key hidden in N characters of text"
out["teacher_forced_final_model"]={"columns":"loss per target token, percent of items with every token argmax-correct (80 items a kind)","values":r2["val_rounded"]}
out["teacher_forced_before_second_course"]=r1["val_rounded"]
out["greedy_generation_before_second_course_gpu_bf16"]=r1.get("eval")
if os.path.exists('build/data/analysis.json'): out.update(json.load(open('build/data/analysis.json')))
out["training"]={"course_1":{k:v for k,v in r1["train"].items() if k!="history"},"course_2":{k:v for k,v in r2["train"].items() if k!="history"}}
json.dump(out,open(T+'eval.json','w'),indent=1)
demo=json.load(open('build/data/demo.json')); json.dump(demo,open(T+'samples.json','w'),ensure_ascii=False,indent=1)
fails=[x for x in items if not x['ok']]; json.dump(fails,open(T+'failures.json','w'),ensure_ascii=False,indent=1)
L=["# What ds4-tiny says","","Every prompt of the fixed list, unedited: greedy (temperature 0) and one sample at temperature 0.7 (no other sampler), f32 on the CPU by infer.py, stopped at EOS or 150 tokens. Tool prompts are shortened here to the request; samples.json has the whole text. The second part lists held-out items that went wrong.",""]
for x in demo:
    p=x["prompt"]; i=p.rfind("<｜User｜>"); tail=p[i:] if i>=0 else p[-200:]
    L+=["## %s (T = %g, %d prompt tokens)"%(x["title"],x["temp"],x["n"]),"","```text",("..." if i>0 and len(p)>len(tail)+40 else p[:i] if i>0 else "")+tail,"--- model:",x["output"],"```",""]
L+=["# Failures on held-out items (all kinds, up to 6 each; %d of %d items failed)"%(len(fails),len(items)),""]
seen={}
for x in fails:
    seen[x['kind']]=seen.get(x['kind'],0)+1
    if seen[x['kind']]>6: continue
    L+=["## %s, %s"%(x['kind'],"thinking" if x['think'] else "chat"),"","```text","..."+x['tail'][max(0,x['tail'].rfind("<｜User｜>")):],"--- wanted:",json.dumps(x['want'],ensure_ascii=False),"--- model:",x['got'],"```",""]
open(T+'transcripts.md','w').write("\n".join(L))
for k,v in ev.items(): print(k,json.dumps(v))
print(len(items),len(demo),len(fails))
